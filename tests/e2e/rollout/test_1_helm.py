"""An administrator's life with the chart: install, configure, upgrade, roll back, remove."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.e2e.api import Doc
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, opaque, request
from tests.e2e.rollout.release import HelmFailed, Release, ask, is_classic, may, nothing_left
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import until


def test_install_and_use(release: Release, ns: Namespace) -> None:
    release.install(cleanup={"timeout": "30s"})
    ask(ns, "gpu")
    ns.pod("p", template="gpu", command=f"{OPEN_ALL} && {STAY}")
    ns.ready("p")


def test_what_cannot_be_is_refused_and_nothing_changes(release: Release) -> None:
    pod = release.driver.pod
    wrong: Doc = {**release.values["nodePlugin"], "settings": {"deviceEvents": {"source": "udev"}}}
    with pytest.raises(HelmFailed, match="hostNetwork"):
        release.upgrade(nodePlugin=wrong)
    release.driver.wait_ready()
    assert release.driver.pod == pod


def test_settings_change_while_pods_run_and_none_restarts(release: Release, ns: Namespace) -> None:
    ask(ns, "gpu")
    ns.pod("p", template="gpu")
    ns.ready("p")
    before = {pod["metadata"]["uid"] for pod in release.driver.pods()}
    layout = {"select": {"bdf": max(offered(release))}, "vfs": [{"profile": "fair-share", "count": 4}]}  # the first ones are given away
    settings = {"sriov": {"mode": "fixed", "make": "eager", "layouts": [layout]}}
    release.upgrade(nodePlugin={**release.values["nodePlugin"], "settings": settings})
    release.driver.refresh_settings()
    until("four VFs", lambda: release.driver.metric("vfs") == 4, seconds=90, look="the plugin's log")
    assert {pod["metadata"]["uid"] for pod in release.driver.pods()} == before
    assert release.driver.restarts() == 0


def test_a_webhook_with_a_certificate_of_the_charts_own(release: Release, ns: Namespace) -> None:
    if is_classic(release.api):
        pytest.skip("claims have no configuration in them up to Kubernetes 1.30")
    release.upgrade(controller={"enabled": True}, webhook={"enabled": True})
    names = iter(range(1000))

    def refused() -> str:
        try:
            ns.claim(f"wrong{next(names)}", request(), config=opaque(sharing="sometimes"))
        except DynamicApiError as error:
            return str(error.body)
        return ""

    told = until("a refusal", refused, seconds=60, look="the controllers' logs")  # endpoints reach the API server a moment later
    assert "is none of exclusive, shared" in told
    before = release.api.get("Secret", "controller-tls", release.namespace)
    release.upgrade()
    after = release.api.get("Secret", "controller-tls", release.namespace)
    assert before is not None and after is not None and before["data"] == after["data"], "an upgrade keeps the certificate"
    ns.claim("right", request(), config=opaque(sharing="exclusive"))


CONTROLLER = {
    ("list", "resourceslices.resource.k8s.io", ""): True,
    ("create", "devicetaintrules.resource.k8s.io", ""): True,
    ("patch", "leases.coordination.k8s.io", "own"): True,
    ("delete", "resourceslices.resource.k8s.io", ""): False,
    ("delete", "pods", "own"): False,
    ("get", "secrets", "own"): False,
    ("patch", "leases.coordination.k8s.io", "kube-system"): False,
    ("update", "nodes", ""): False,
}
"""(verb, resource, namespace) -> whether the account of the controller may."""


def test_the_controller_may_do_what_it_does_and_no_more(release: Release) -> None:
    if is_classic(release.api):
        pytest.skip("tests/e2e/classic looks at the rights of the controller that allocates")
    assert {what: may(release.driver, "controller", *what) for what in CONTROLLER} == CONTROLLER


def test_upgrade_and_rollback_under_load_fail_no_pod(release: Release, ns: Namespace) -> None:
    ask(ns, "gpu")
    under_load(ns, "u", lambda: release.upgrade(nodePlugin={**release.values["nodePlugin"], "podAnnotations": {"revision": "2"}}))
    assert annotation(release) == "2"
    under_load(ns, "r", release.rollback)
    assert annotation(release) is None


def under_load(ns: Namespace, prefix: str, act: Callable[[], None]) -> None:
    """Pods come, open their GPU and end, before, while and after."""
    names = [f"{prefix}{number}" for number in range(24)]
    for name in names[:8]:
        ns.pod(name, template="gpu", command=OPEN_ALL)
    for name in names[8:16]:
        ns.pod(name, template="gpu", command=OPEN_ALL)
    act()
    for name in names[16:]:
        ns.pod(name, template="gpu", command=OPEN_ALL)
    ns.all_succeeded(names, seconds=240)
    for name in names:
        ns.api.delete("Pod", name, ns.name, grace=0)


def annotation(release: Release) -> str | None:
    [pod] = release.driver.pods()
    found: str | None = (pod["metadata"].get("annotations") or {}).get("revision")
    return found


def test_uninstall_waits_for_pods_names_them_and_leaves_nothing(release: Release, ns: Namespace, cluster: Cluster) -> None:
    ask(ns, "gpu")
    ns.pod("busy", template="gpu")
    ns.ready("busy")
    with pytest.raises(HelmFailed):
        release.uninstall()
    assert f"{ns.name}/busy" in release.hook_log()
    ns.ready("busy")
    ns.delete("busy")
    release.uninstall()
    nothing_left(release.driver, cluster)


# --- both kinds of inventory --------------------------------------------------------------------------------------------------------------


def offered(release: Release) -> set[str]:
    """PCI addresses of what users can have."""
    driver = release.driver
    if is_classic(release.api):
        return {device["uid"].rpartition("-")[0] for device in driver.state()["spec"]["allocatableDevices"].values()}  # type: ignore[union-attr]
    return {device["attributes"]["pciAddress"]["string"] for device in driver.devices().values()}
