"""A GPU falls ill under a pod: the cluster knows at once, new pods go elsewhere, and afterwards it is given away again.

How soon is in docs/figures.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.api import Doc
from tests.e2e.driver import Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import Namespace, request
from tools.realcluster.node import until

CARD = "0000:ac:00.0"
NAME = "0000-ac-00-0-0x56c0"
QUICK = "holdDown: 1s, quiet: 5s, quietMost: 5s, period: 1s"
STAYING = f"{QUICK}, effects: {{failed: NoSchedule}}"
KUBELET_LOOKS = 120.0
"""Seconds; the kubelet brings a changed ConfigMap into a pod about once a minute, or when the pod changes."""
EVICTED = 60.0


@pytest.fixture
def quick(driver: Driver) -> Iterator[Driver]:
    """With short times and nobody evicted, and a card that is well again afterwards."""
    having(driver, QUICK)
    yield driver
    driver.machine("unwedge", CARD)
    having(driver, "")
    driver.wait_devices(lambda devices: NAME in devices and not taints(devices[NAME]), f"{NAME} without taints", seconds=KUBELET_LOOKS)


def having(driver: Driver, health: str) -> None:
    """Until the plugin goes by these settings."""
    before = driver.metric("reloads_total", result="applied") or 0
    driver.set(f"health: {{{health}}}\n" if health else "")
    driver.refresh_settings()
    until(
        "settings applied", lambda: (driver.metric("reloads_total", result="applied") or 0) > before, seconds=KUBELET_LOOKS, look="the log"
    )


def taints(device: Doc) -> dict[str, str]:
    return {taint["key"]: taint["effect"] for taint in device.get("taints") or []}


def on_card(ns: Namespace, name: str) -> None:
    ns.template(name, request(cel=f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"'))


def health_of(pod: Doc) -> list[Doc]:
    return [
        resource
        for status in pod["status"].get("containerStatuses") or []
        for entry in status.get("allocatedResourcesStatus") or []
        for resource in entry["resources"]
    ]


def test_a_wedged_gpu_is_tainted_and_its_pod_evicted(quick: Driver, ns: Namespace) -> None:
    if quick.api.version < (1, 33):
        pytest.skip("taints of devices came with Kubernetes 1.33")
    on_card(ns, "gpu")
    ns.pod("p", template="gpu")
    ns.ready("p")
    quick.machine("wedge", CARD)
    quick.wait_devices(lambda devices: taints(devices.get(NAME, {})).get("gpu.intel.com/wedged") == "NoExecute", f"a taint of {NAME}")
    ns.api.wait("Pod", lambda pods: "p" not in pods or pods["p"]["status"]["phase"] == "Failed", namespace=ns.name, what="p evicted",
                seconds=EVICTED)  # fmt: skip
    ns.pod("later", template="gpu")
    ns.api.wait_event("later", "FailedScheduling", namespace=ns.name)
    quick.machine("unwedge", CARD)
    ns.ready("later", seconds=EVICTED)
    quick.api.wait_event(quick.node, "GPUFailed", text=CARD)
    quick.api.wait_event(quick.node, "GPUHealthy", text=CARD)


def test_a_pod_says_in_its_status_that_its_gpu_is_ill(quick: Driver, ns: Namespace) -> None:
    if quick.api.version < (1, 36):
        pytest.skip("health of devices in the status of pods is on by default since Kubernetes 1.36")
    having(quick, STAYING)
    on_card(ns, "gpu")
    ns.pod("p", template="gpu")
    ns.ready("p")

    def says(word: str) -> None:
        def so(pods: dict[str, Doc]) -> bool:
            return {resource.get("health") for resource in health_of(pods["p"])} == {word}

        ns.api.wait("Pod", so, namespace=ns.name, what=f"p whose GPU is {word}")

    says("Healthy")
    quick.machine("wedge", CARD)
    says("Unhealthy")
    [pod] = ns.api.list("Pod", ns.name)
    assert "wedged" in health_of(pod)[0]["message"]
    quick.machine("unwedge", CARD)
    says("Healthy")


def test_a_claim_says_what_it_was_given_and_how_it_is(quick: Driver, ns: Namespace) -> None:
    if quick.api.version < (1, 33):
        pytest.skip("devices in the status of claims are on by default since Kubernetes 1.33")
    having(quick, STAYING)
    ns.claim("held", request(cel=f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"'))
    ns.pod("p", claim="held")
    ns.ready("p")

    def ready(word: str) -> Doc:
        def so(claims: dict[str, Doc]) -> Doc | None:
            for device in claims["held"]["status"].get("devices") or []:
                if any(each["type"] == "Ready" and each["status"] == word for each in device.get("conditions") or []):
                    return device
            return None

        found: Doc = ns.api.wait("ResourceClaim", so, namespace=ns.name, what=f"a device of the claim with Ready {word}")
        return found

    assert ready("True")["data"]["pciAddress"] == CARD
    quick.machine("wedge", CARD)
    ready("False")


def test_a_plugin_that_restarts_meanwhile_forgets_nothing(quick: Driver, node: OwnNode) -> None:
    if quick.api.version < (1, 33):
        pytest.skip("taints of devices came with Kubernetes 1.33")
    having(quick, "quiet: 20s, quietMost: 20s, period: 1s")
    quick.machine("aer", CARD, "fatal", "1")
    quick.wait_devices(lambda devices: "gpu.intel.com/pcie" in taints(devices[NAME]), f"a taint of {NAME}")
    node.kill()
    quick.wait_ready()
    assert "gpu.intel.com/pcie" in taints(quick.devices()[NAME]), "still in its quiet period"
    quick.wait_devices(lambda devices: not taints(devices[NAME]), f"{NAME} without taints", seconds=40)
