"""The API server dies, freezes, forgets, refuses tokens and refuses everything: nothing is wrong afterwards, and nobody hammered it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.driver import ACCOUNT, NAMESPACE, Driver, total
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import OPEN_ALL, STAY, Namespace
from tools.realcluster import components
from tools.realcluster.faults import Faults
from tools.realcluster.node import until

KUBELET_COMES_BACK = 150.0
OPEN = f"{OPEN_ALL} && echo opened; {STAY}"
LOOKED_AT_AGAIN = 330.0
"""1.31's scheduler does not look at slices that change, but every five minutes at pods that wait: after the kubelet started, which removes
the slices for a moment, a pod may take so long there (scheduler flushUnschedulablePodsLeftover)."""
FROZEN_SECONDS = 60.0
STORM_SECONDS = 20.0
MOST_REQUESTS = 60
"""Of the driver while it finds its way back: discovery, lists, watches, its slice and Events are about twenty; a hot loop is thousands."""
FLOW = "flowcontrol.apiserver.k8s.io/v1"


@pytest.fixture(scope="module")
def counted(api: Api, installed: Driver) -> Callable[[], float]:
    """How many requests of the driver this API server has answered or refused since it started: its own count."""
    _schema(api, "driver-counted", "global-default", precedence=200)

    def count() -> float:
        text = api.raw_text("/metrics")
        kinds = ("dispatched", "rejected")
        schemas = ("driver-counted", "driver-refused")
        return sum(total(text, f"apiserver_flowcontrol_{kind}_requests_total", flow_schema=schema) for kind in kinds for schema in schemas)

    return count


@pytest.fixture(scope="module")
def whole(installed: Driver) -> set[str]:
    """Every GPU of the machine."""
    return set(installed.wait_devices(bool, "GPUs offered", seconds=KUBELET_COMES_BACK))


@pytest.fixture
def offered(driver: Driver, whole: set[str]) -> set[str]:
    """All GPUs, once they are offered: a kubelet that the test before started anew may just have wiped the slices."""
    driver.wait_devices(lambda devices: devices.keys() == whole, "all GPUs offered", seconds=KUBELET_COMES_BACK)
    return whole


def _schema(api: Api, name: str, level: str, *, precedence: int) -> None:
    """The driver's requests, in a class of their own."""
    everything = {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    account = {"namespace": NAMESPACE, "name": ACCOUNT.rpartition(":")[2]}
    rule = {"subjects": [{"kind": "ServiceAccount", "serviceAccount": account}], **everything}
    spec = {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule]}
    if api.get("FlowSchema", name) is None:
        api.create({"apiVersion": FLOW, "kind": "FlowSchema", "metadata": {"name": name}, "spec": spec})


@contextlib.contextmanager
def refusing(api: Api) -> Iterator[None]:
    """Every request of the driver is refused with 429."""
    limits = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
    level = {"type": "Limited", "limited": limits}
    api.create({"apiVersion": FLOW, "kind": "PriorityLevelConfiguration", "metadata": {"name": "refuse"}, "spec": level})
    _schema(api, "driver-refused", "refuse", precedence=100)
    try:
        yield
    finally:
        api.delete("FlowSchema", "driver-refused")
        api.delete("PriorityLevelConfiguration", "refuse")


def healthy(driver: Driver, ns: Namespace, offered: set[str]) -> None:
    """All GPUs are offered, one can be had, and it is cleaned up."""
    driver.wait_devices(lambda devices: devices.keys() == offered, "all GPUs offered again")
    ns.pod("afterwards", template="gpu", command=OPEN_ALL)
    seconds = KUBELET_COMES_BACK + (LOOKED_AT_AGAIN if driver.api.version < (1, 32) else 0)
    assert ns.ended("afterwards", seconds=seconds) == "Succeeded"


def test_killed(driver: Driver, offered: set[str], node: OwnNode, faults: Faults, ns: Namespace, counted: Callable[[], float]) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu", command=OPEN)
    ns.ready("p")
    faults.kill(components.API_SERVER)
    try:
        node.machine("unplug", "0000:dd:00.0")
    finally:
        faults.start(components.API_SERVER)
    node.cluster.await_api()
    driver.wait_devices(lambda devices: len(devices) == len(offered) - 1, "the GPU that went meanwhile withdrawn")
    node.machine("plug", "0000:dd:00.0")
    healthy(driver, ns, offered)
    assert driver.restarts() == 0
    assert 0 < counted() < MOST_REQUESTS


def test_frozen_for_a_minute(
    driver: Driver, offered: set[str], node: OwnNode, faults: Faults, ns: Namespace, counted: Callable[[], float]
) -> None:
    before = counted()
    ns.template("gpu")
    faults.freeze(components.API_SERVER)
    try:
        node.machine("unplug", "0000:dd:00.0")
        time.sleep(FROZEN_SECONDS)  # the length of the freeze is what is tested
        node.machine("plug", "0000:dd:00.0")
    finally:
        faults.thaw(components.API_SERVER)
    node.cluster.await_api()
    healthy(driver, ns, offered)
    assert driver.restarts() == 0
    assert counted() - before < MOST_REQUESTS


def test_connections_cut_and_a_slice_wiped(
    driver: Driver, offered: set[str], node: OwnNode, faults: Faults, ns: Namespace, counted: Callable[[], float]
) -> None:
    before, said = counted(), len(driver.log())
    ns.template("gpu")
    faults.cut()
    try:
        for item in driver.slices():
            driver.api.delete("ResourceSlice", item["metadata"]["name"])
        until("the driver cut off", lambda: "cannot follow" in driver.log()[said:], seconds=30, look="the plugin's log")
    finally:
        faults.mend()
    healthy(driver, ns, offered)
    assert counted() - before < MOST_REQUESTS


def test_its_data_goes_back_in_time(driver: Driver, offered: set[str], node: OwnNode, faults: Faults, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("old", template="gpu", command=OPEN, restart="Always")
    ns.ready("old")
    held = ns.allocated()
    faults.save_data()
    ns.pod("new", template="gpu", command=OPEN)
    ns.ready("new")
    node.machine("unplug", "0000:dd:00.0")
    driver.wait_devices(lambda devices: len(devices) == len(offered) - 1, "a GPU withdrawn, in a write that will be forgotten")
    faults.restore_data()
    driver.wait_devices(lambda devices: len(devices) == len(offered) - 1, "what is forgotten written again", seconds=90)
    node.machine("plug", "0000:dd:00.0")
    healthy(driver, ns, offered)
    assert ns.allocated().items() >= held.items()
    ns.ready("old")
    ns.delete("old", "afterwards")
    driver.nothing_prepared()


def test_every_token_is_void(
    driver: Driver, offered: set[str], node: OwnNode, faults: Faults, ns: Namespace, counted: Callable[[], float]
) -> None:
    ns.template("gpu")
    faults.renew_tokens()
    healthy(driver, ns, offered)
    assert driver.restarts() == 0
    assert 0 < counted() < MOST_REQUESTS


def test_every_request_is_refused_for_a_while(
    driver: Driver, offered: set[str], node: OwnNode, ns: Namespace, counted: Callable[[], float]
) -> None:
    before = counted()
    ns.template("gpu")
    with refusing(driver.api):
        node.machine("unplug", "0000:dd:00.0")
        ns.pod("p", template="gpu", command=OPEN)
        time.sleep(STORM_SECONDS)  # how much is asked within this time is what is tested
        refused = counted() - before
        node.machine("plug", "0000:dd:00.0")
    assert 0 < refused < STORM_SECONDS * 2
    ns.ready("p", seconds=20)  # its prepare waited inside the kubelet's call
    healthy(driver, ns, offered)
