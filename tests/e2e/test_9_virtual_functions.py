"""VFs are cut for pods and gone after the last, GPUs are shared, and one goes to a virtual machine's pod and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.driver import Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, request
from tools.realcluster.node import until

CARD = "0000:4d:00.0"
WHOLE = "0000-4d-00-0-0x56c0"
VFS = [f"0000-4d-00-{index}-0x56c0" for index in range(1, 5)]
CUT = f"sriov: {{mode: fixed, layouts: [{{select: {{bdf: '{CARD}'}}, vfs: flex170_m4}}]}}\n"
OPEN = f"{OPEN_ALL} && echo opened; {STAY}"
COUNTERS = (1, 33)
"""The first release with counters (here the feature gate is on)."""
TWO_INSTANCES = (1, 33)
"""The first kubelet that calls the newer of two instances, and the older one too for what it prepared."""
SHARES = (1, 36)
"""Before, the scheduler gives shares away, but loses count of them (1.34) or needs gates that break kubelets (1.35)."""


def vf() -> dict:
    return request(device_class="gpu-vf.intel.com", cel=f'device.attributes["gpu.intel.com"].pfPciAddress == "{CARD}"')


def card() -> dict:
    mine = 'device.attributes["gpu.intel.com"]'
    return request(cel=f'{mine}.pciAddress == "{CARD}" && {mine}.type == "gpu"')


@contextlib.contextmanager
def settings(driver: Driver, text: str) -> Iterator[None]:
    """These, and afterwards none: what was published before is published again."""
    before = set(driver.devices())
    driver.set(text)
    driver.refresh_settings()
    try:
        yield
    finally:
        driver.set("")
        driver.refresh_settings()
        driver.wait_devices(lambda devices: set(devices) == before, "what was published before")


@contextlib.contextmanager
def cut(driver: Driver) -> Iterator[None]:
    with settings(driver, CUT):
        driver.wait_devices(lambda devices: set(VFS) <= set(devices), "the VFs of a card")
        yield


def pod_whose_vf_is_being_made(driver: Driver, ns: Namespace) -> None:
    """Pod `p`; the kernel takes three seconds for its VF."""
    driver.machine("delay", "sriov", "3")
    ns.template("vf", vf())
    ns.pod("p", template="vf", command=OPEN)
    until("the word that VFs are made", lambda: f"{CARD}: making 4 VFs" in driver.log(), seconds=60, look="the plugin's log")


def vfs_now(driver: Driver) -> int:
    return int(driver.metric("vfs") or 0)


def whole_again(driver: Driver) -> None:
    until("a card without VFs", lambda: vfs_now(driver) == 0, seconds=60, look="the plugin's log")


def test_vfs_are_made_for_pods_and_gone_after_the_last(driver: Driver, ns: Namespace) -> None:
    with cut(driver):
        published = driver.devices()
        assert published[VFS[0]]["attributes"]["profile"]["string"] == "flex170_m4"
        assert (WHOLE in published) == (driver.api.version >= COUNTERS), "beside its VFs only where counters keep them apart"
        assert vfs_now(driver) == 0, "nobody asked yet"
        ns.template("vf", vf())
        for number in range(4):
            ns.pod(f"p{number}", template="vf", command=OPEN)
        ns.ready("p0", "p1", "p2", "p3")
        assert sorted(device for devices in ns.allocated().values() for device in devices) == VFS
        assert vfs_now(driver) == 4
        ns.pod("too-many", template="vf")
        ns.api.wait_event("too-many", "FailedScheduling", namespace=ns.name)
        ns.delete("p0", "p1", "p2", "p3", "too-many")
        whole_again(driver)


def test_a_card_and_its_vfs_are_never_both_given_away(driver: Driver, ns: Namespace) -> None:
    if driver.api.version < COUNTERS:
        pytest.skip("counters came with Kubernetes 1.33")
    with cut(driver):
        ns.template("vf", vf())
        ns.template("card", card())
        ns.pod("first", template="vf", command=OPEN)
        ns.ready("first")
        ns.pod("whole", template="card", command=OPEN)
        ns.api.wait_event("whole", "FailedScheduling", namespace=ns.name)
        ns.delete("first")
        ns.ready("whole", seconds=150)
        assert vfs_now(driver) == 0
        ns.pod("late", template="vf", command=OPEN)
        ns.api.wait_event("late", "FailedScheduling", namespace=ns.name)
        ns.delete("whole")
        ns.ready("late", seconds=150)
        ns.delete("late")
        whole_again(driver)


def test_a_plugin_killed_while_it_makes_vfs_makes_them_in_its_next_life(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    with cut(driver):
        pod_whose_vf_is_being_made(driver, ns)
        node.kill()
        driver.wait_ready()
        ns.ready("p", seconds=150)
        ns.delete("p")
        whole_again(driver)
    driver.renew()


def test_an_update_while_vfs_are_made_leaves_them_to_the_successor(driver: Driver, ns: Namespace) -> None:
    if driver.api.version < TWO_INSTANCES:
        pytest.skip("a kubelet before 1.33 calls one instance of a driver only: an update is a short outage")
    with cut(driver):
        pod_whose_vf_is_being_made(driver, ns)
        driver.roll()
        driver.rolled_out()
        ns.ready("p", seconds=150)
        assert (vfs_now(driver), driver.restarts()) == (4, 0)
        ns.delete("p")
        whole_again(driver)


def test_pods_share_a_gpu(driver: Driver, ns: Namespace) -> None:
    if driver.api.version < SHARES:
        pytest.skip("consumable capacity that is on by default came with Kubernetes 1.36")
    with settings(driver, f"sharing: [{{select: {{bdf: '{CARD}'}}, policy: shares, shares: 2}}]\n"):
        driver.wait_devices(lambda devices: devices[WHOLE].get("allowMultipleAllocations"), "a GPU for several claims")
        ns.template("share", card())
        for pod in ("a", "b"):
            ns.pod(pod, template="share", command=OPEN)
        ns.ready("a", "b")
        assert list(ns.allocated().values()) == [[WHOLE], [WHOLE]]
        ns.pod("c", template="share", command=OPEN)
        ns.api.wait_event("c", "FailedScheduling", namespace=ns.name)
        ns.delete("a")
        ns.ready("c", seconds=90)
        ns.delete("b", "c")
        driver.nothing_prepared()


def test_a_gpu_goes_to_a_virtual_machines_pod_and_comes_back(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    driver.machine("modprobe", "vfio-pci")
    ns.template("vm", request(device_class="gpu-vfio.intel.com", cel=f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"'))
    where = "/var/run/kubernetes.io/dra-device-attributes/resourceclaimtemplates/gpu/gpu/gpu.intel.com-metadata.json"
    ns.pod("vm", template="vm", command=f"ls /dev/vfio; cat {where}; {STAY}")
    ns.ready("vm")
    seen = ns.logs("vm")
    assert "vfio" in seen and CARD in seen
    assert driver.machine("state")[CARD]["driver"] == "vfio-pci"
    node.kill()
    driver.wait_ready()
    ns.delete("vm")
    driver.nothing_prepared()
    assert driver.machine("state")[CARD]["driver"] == "i915"
    driver.renew()
