"""Every way in which a claim can be written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from tests.e2e import other_driver as other_driver_program
from tests.e2e.api import Api, Doc
from tests.e2e.driver import Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, opaque, request

PF = 'device.attributes["gpu.intel.com"].type == "gpu"'
COUNT = f"{OPEN_ALL}; ls /dev/dri | grep -c card; {STAY}"


def needs(api: Api, minor: int, what: str) -> None:
    if api.version < (1, minor):
        pytest.skip(f"{what} came with Kubernetes 1.{minor}")


def test_containers_share_one_claim(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu", command=COUNT, containers={"a": {"name": "gpu"}, "b": {"name": "gpu"}})
    ns.ready("p")
    assert ns.logs("p", "a").split() == ns.logs("p", "b").split() == ["1"]


def test_pods_share_one_claim(driver: Driver, ns: Namespace) -> None:
    ns.claim("shared")
    for name in ("a", "b"):
        ns.pod(name, claim="shared", command=COUNT)
    ns.ready("a", "b")
    ns.delete("a")
    assert ns.logs("b").split() == ["1"]
    assert len(driver.cdi_files()) == 1


def test_each_container_gets_its_own_request(driver: Driver, ns: Namespace) -> None:
    ns.template("gpus", request("one"), request("two", count=2))
    ns.pod("p", template="gpus", command=COUNT, containers={"a": {"name": "gpu", "request": "one"}, "b": {"name": "gpu", "request": "two"}})
    ns.ready("p")
    assert (ns.logs("p", "a").split(), ns.logs("p", "b").split()) == (["1"], ["2"])


def test_all_gpus_of_the_node(driver: Driver, ns: Namespace) -> None:
    cards = sum(device["attributes"]["type"]["string"] == "gpu" for device in driver.devices().values())
    ns.template("every", request(cel=PF, allocationMode="All"))
    ns.pod("p", template="every", command=COUNT)
    ns.ready("p")
    assert ns.logs("p").split() == [str(cards)]


def test_a_prioritized_list_takes_the_first_that_there_is(driver: Driver, ns: Namespace) -> None:
    needs(ns.api, 34, "prioritized lists that are on by default")

    def wish(name: str, family: str) -> dict:
        selector = {"cel": {"expression": f'device.attributes["gpu.intel.com"].family == "{family}"'}}
        return {"name": name, "deviceClassName": "gpu.intel.com", "selectors": [selector]}

    ns.template("best", {"name": "gpu", "firstAvailable": [wish("max", "Data Center Max"), wish("flex", "Data Center Flex")]})
    ns.pod("p", template="best", command=COUNT)
    ns.ready("p")
    assert ns.logs("p").split() == ["1"]


def test_monitoring_sees_every_gpu_while_others_use_them(driver: Driver, ns: Namespace) -> None:
    needs(ns.api, 34, "admin access that is on by default")
    ns.template("gpu")
    ns.pod("user", template="gpu")
    ns.ready("user")
    watch = request("watch", device_class="gpu-monitor.intel.com", allocationMode="All", adminAccess=True)
    with pytest.raises(UnprocessibleEntityError, match="admin-access"):
        ns.template("monitor", watch)
    ns.api.patch("Namespace", ns.name, {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}})
    ns.template("monitor", watch)
    ns.pod("monitor", template="monitor", command=COUNT)
    ns.ready("monitor")
    assert ns.logs("monitor").split() == [str(len(driver.devices()))]


def test_gpus_below_one_root_port(driver: Driver, ns: Namespace) -> None:
    together = [{"requests": ["gpus"], "matchAttribute": "resource.kubernetes.io/pcieRoot"}]
    ns.template("near", request("gpus", count=4), constraints=together)
    ns.pod("p", template="near", command=COUNT)
    ns.ready("p")
    [names] = ns.allocated().values()
    devices = driver.devices()
    assert len({devices[name]["attributes"]["resource.kubernetes.io/pcieRoot"]["string"] for name in names}) == 1
    ns.delete("p")
    ns.template("too-near", request("gpus", count=5), constraints=together)
    ns.pod("q", template="too-near")
    ns.api.wait_event("q", "FailedScheduling", namespace=ns.name)


@pytest.fixture
def other_driver(node: OwnNode) -> Iterator[None]:
    """On the same node, with one device."""
    api, place = node.driver.api, node.driver.node
    pool = {"name": place, "generation": 1, "resourceSliceCount": 1}
    device: Doc = {"name": "gpu-0"} if api.dra in ("v1", "v1beta2") else {"name": "gpu-0", "basic": {}}
    spec = {"driver": other_driver_program.NAME, "nodeName": place, "pool": pool, "devices": [device]}
    group = f"resource.k8s.io/{api.dra}"
    selector = {"cel": {"expression": f'device.driver == "{other_driver_program.NAME}"'}}
    with node.running("tests.e2e.other_driver"):
        api.create({"apiVersion": group, "kind": "DeviceClass", "metadata": {"name": "other"}, "spec": {"selectors": [selector]}})
        api.create({"apiVersion": group, "kind": "ResourceSlice", "metadata": {"name": "other"}, "spec": spec})
        yield
        api.delete("ResourceSlice", "other")
        api.delete("DeviceClass", "other")


@pytest.mark.usefixtures("other_driver")
def test_a_claim_of_two_drivers(driver: Driver, ns: Namespace) -> None:
    ns.template("both", request("ours"), request("theirs", device_class="other"))
    ns.pod("p", template="both", command=f"{OPEN_ALL}; echo $OTHER; {COUNT}")
    ns.ready("p")
    assert ns.logs("p").split() == ["here", "1"]
    ns.delete("p")
    driver.nothing_prepared()


def test_an_extended_resource_needs_no_claim(driver: Driver, ns: Namespace) -> None:
    needs(ns.api, 36, "extended resources by device classes that are on by default")
    ns.api.patch("DeviceClass", "gpu.intel.com", {"spec": {"extendedResourceName": "intel.com/gpu"}})
    try:
        ns.pod("p", command=COUNT, limits={"intel.com/gpu": "1"})
        ns.ready("p")
        assert ns.logs("p").split() == ["1"]
        ns.delete("p")
        ns.claims_gone()
    finally:
        ns.api.patch("DeviceClass", "gpu.intel.com", {"spec": {"extendedResourceName": None}})


def test_a_good_configuration_is_taken(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu", config=opaque())
    ns.pod("p", template="gpu", command=COUNT)
    ns.ready("p")


def test_a_wrong_configuration_is_said_in_the_pods_event_in_one_line(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu", config=opaque(monitr=True))
    ns.pod("p", template="gpu")
    said = ns.api.wait_event("p", "FailedPrepareDynamicResources", namespace=ns.name)
    assert "unknown field `monitr`" in said and "\n" not in said
    assert ns.api.wait_event("p", "PrepareFailed", namespace=ns.name) in said
