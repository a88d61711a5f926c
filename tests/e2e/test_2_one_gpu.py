"""A pod that asks for a GPU, one that does not, and one that has to wait."""

from __future__ import annotations

from tests.e2e.driver import Driver
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, request

FLEX = (
    'device.attributes["gpu.intel.com"].family == "Data Center Flex" && '
    'device.capacity["gpu.intel.com"].memory.compareTo(quantity("8Gi")) > 0'
)


def test_a_pod_opens_what_it_asked_for_and_nothing_else(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu", request(cel=FLEX))
    ns.pod("with", template="gpu", command=f"{OPEN_ALL}; ls /dev/dri | grep -c card; {STAY}")
    ns.pod("without", command=f"mknod /tmp/card c 10 229; dd if=/tmp/card count=0 2>&1; ls /dev/dri; {STAY}")
    ns.ready("with", "without")
    assert ns.logs("with").split() == ["1"]
    refused = ns.logs("without")
    assert "Operation not permitted" in refused and "/dev/dri: No such file or directory" in refused
    [[device]] = ns.allocated().values()
    assert driver.devices()[device]["attributes"]["family"]["string"] == "Data Center Flex"


def test_who_comes_too_late_gets_it_when_the_first_one_goes(driver: Driver, ns: Namespace) -> None:
    one = next(name for name in driver.devices() if name.endswith("-00-0-0x56c0"))
    bdf = driver.devices()[one]["attributes"]["pciAddress"]["string"]
    ns.template("that-one", request(cel=f'device.attributes["gpu.intel.com"].pciAddress == "{bdf}"'))
    ns.pod("first", template="that-one")
    ns.ready("first")
    ns.pod("second", template="that-one")
    ns.api.wait_event("second", "FailedScheduling", namespace=ns.name)
    ns.delete("first")
    ns.ready("second", seconds=90)
    assert list(ns.allocated().values()) == [[one]]


def test_nothing_is_left_of_a_pod_that_ends(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu", command=f"{OPEN_ALL}")
    assert ns.ended("p") == "Succeeded"
    ns.claims_gone()
    driver.nothing_prepared()
