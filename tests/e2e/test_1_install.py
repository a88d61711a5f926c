"""Installing it, and what settings do."""

from __future__ import annotations

import re
import uuid

import pytest
import yaml

from nursery_apps.version import VERSION
from tests.e2e.api import Doc
from tests.e2e.driver import NAMESPACE, ROOT, Driver


def test_slices_are_what_discover_prints(driver: Driver) -> None:
    wanted = {gpu["name"] for gpu in driver.discovered() if gpu["publishable"]}
    assert driver.devices().keys() == wanted


def test_wrong_settings_are_refused_in_the_log_and_in_an_event_and_the_old_ones_stay(driver: Driver) -> None:
    before = driver.devices()
    try:
        field = f"prot{uuid.uuid4().hex[:6]}"  # unlike that of an earlier run on the same cluster
        driver.set(f"probes: {{{field}: 1}}\n")
        # The kubelet looks at ConfigMaps once a minute; an annotation of the pod makes it look now.
        driver.refresh_settings()
        said = driver.api.wait_event(driver.node, "SettingsInvalid", text=field, seconds=120)
        assert "settings.yaml" in said
        assert field in driver.log()
        assert driver.devices() == before
    finally:
        driver.set("")
        driver.refresh_settings()


def test_a_plugin_that_starts_with_wrong_settings_says_so_and_ends(driver: Driver) -> None:
    try:
        driver.set("gracePeriod: soon\n")
        driver.api.delete("Pod", driver.pod, NAMESPACE)

        def end(pods: dict[str, Doc]) -> Doc | None:
            for status in (status for pod in pods.values() for status in pod["status"].get("containerStatuses") or []):
                for state in (status["state"], status.get("lastState") or {}):
                    if state.get("terminated", {}).get("exitCode") == 2:
                        return state["terminated"]
            return None

        said = driver.api.wait("Pod", end, namespace=NAMESPACE, what="the plugin ended with 2")["message"]
        assert "gracePeriod" in said and "1m30s" in said
    finally:
        driver.set("")
        driver.api.delete("Pod", driver.pod, NAMESPACE)


@pytest.mark.parametrize(
    ("overlay", "served", "side_by_side"),
    [
        ("base", "v1", True),
        ("overlays/simulate", "v1", True),
        ("overlays/kubernetes-1.33", "v1beta2", True),
        ("overlays/kubernetes-1.32", "v1beta1", False),
        ("overlays/kubernetes-1.31", "v1alpha3", False),
    ],
)
def test_each_release_gets_what_it_serves(driver: Driver, overlay: str, served: str, side_by_side: bool) -> None:
    text = driver.kubectl("kustomize", str(ROOT / "manifests" / "kustomize" / overlay))
    docs = list(yaml.safe_load_all(text))
    assert {doc["apiVersion"] for doc in docs if doc["kind"] == "DeviceClass"} == {f"resource.k8s.io/{served}"}
    [daemons] = [doc for doc in docs if doc["kind"] == "DaemonSet"]
    assert (daemons["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 1) is side_by_side
    assert ("POD_UID" in text) is side_by_side
    assert re.search(rf"image: registry\.local/intel-gpu-dra(-simulated)?:{re.escape(VERSION)}\n", text)
