"""The driver, the kubelet and the node die, are updated and take over from others: pods keep what they have and get what they ask for."""

from __future__ import annotations

import json
import zlib
from string import Template

import pytest
from inotify_simple import flags

from tests.e2e.driver import NAMESPACE, Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, request
from tools.realcluster import components
from tools.realcluster.faults import Faults

KUBELET_COMES_BACK = 150.0
"""Seconds; after a prepare that failed, or found no driver, the kubelet comes back only after up to a minute and a half."""
OPEN = f"{OPEN_ALL} && echo opened; {STAY}"


def test_a_killed_plugin_comes_back_and_pods_do_not_notice(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("before", template="gpu", command=OPEN)
    ns.ready("before")
    kept = driver.cdi_files()
    node.kill()
    driver.wait_ready()
    assert driver.cdi_files() == kept
    ns.pod("after", template="gpu")
    ns.ready("before", "after", seconds=KUBELET_COMES_BACK)
    node.kill()
    ns.delete("before", "after")
    driver.nothing_prepared()


def test_killed_in_the_middle_of_prepare_and_of_unprepare(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    ns.template("gpu")
    for pod, moment in (("a", flags.CREATE), ("b", flags.MOVED_TO)):  # the CDI file is begun, is complete
        with node.killed_by(moment):
            ns.pod(pod, template="gpu", command=OPEN)
        driver.renew()  # the kubelet would let the next crash wait, longer with each
    ns.ready("a", "b", seconds=KUBELET_COMES_BACK)
    with node.killed_by(flags.DELETE):
        ns.api.delete("Pod", "a", ns.name)
    ns.delete("a", "b")
    driver.nothing_prepared()


def test_a_torn_journal_costs_nothing_but_a_finding(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu")
    ns.ready("p")
    with open(node.state / "journal", "ab") as journal:
        journal.write(b'{"half a li')
    node.kill()
    driver.wait_ready()
    assert "journal: 1 claims" in driver.log()
    ns.delete("p")
    driver.nothing_prepared()


def test_a_pod_deleted_while_the_plugin_is_down_is_cleaned_up_when_it_is_back(driver: Driver, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu")
    ns.ready("p")
    with driver.away():
        ns.api.delete("Pod", "p", ns.name)
    ns.delete("p")
    driver.nothing_prepared()


def test_a_restarted_kubelet_finds_the_driver_again(driver: Driver, faults: Faults, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("before", template="gpu", command=OPEN)
    ns.ready("before")
    offered = driver.devices().keys()
    faults.restart(components.KUBELET)  # which removes its node's slices as it starts
    ns.pod("after", template="gpu", command=OPEN)
    ns.ready("before", "after", seconds=KUBELET_COMES_BACK)
    driver.wait_devices(lambda devices: devices.keys() == offered, "all GPUs offered again")
    [before] = [pod for pod in ns.api.list("Pod", ns.name) if pod["metadata"]["name"] == "before"]
    assert before["status"]["containerStatuses"][0]["restartCount"] == 0
    assert driver.restarts() == 0


def test_after_a_reboot_pods_have_the_same_gpu(driver: Driver, node: OwnNode, faults: Faults, ns: Namespace) -> None:
    ns.template("gpu")
    ns.pod("p", template="gpu", command=OPEN, restart="Always")
    ns.ready("p")
    held, offered = ns.allocated(), driver.devices().keys()
    faults.power_off()
    node.forget_machine()
    faults.power_on()
    node.cluster.node.join_network()
    ns.ready_again("p", seconds=KUBELET_COMES_BACK)
    assert "opened" in ns.logs("p")
    assert ns.allocated() == held
    driver.wait_ready(seconds=KUBELET_COMES_BACK)
    driver.wait_devices(lambda devices: devices.keys() == offered, "all GPUs offered again")
    ns.delete("p")
    driver.nothing_prepared()


def test_pods_start_all_through_a_rolling_update(driver: Driver, ns: Namespace) -> None:
    if driver.api.version < (1, 33):
        pytest.skip("a kubelet before 1.33 calls one instance of a driver only: an update is a short outage")
    ns.template("gpu")
    old = driver.pod
    driver.roll()
    started = 0
    while old in {pod["metadata"]["name"] for pod in driver.api.list("Pod", NAMESPACE)} or started < 10:
        ns.pod(f"p{started}", template="gpu", command=OPEN_ALL)
        assert ns.ended(f"p{started}", seconds=20) == "Succeeded"
        started += 1
    driver.rolled_out()
    warnings = [event for event in ns.api.list("Event", ns.name) if event["reason"] in ("FailedPrepareDynamicResources", "PrepareFailed")]
    assert warnings == [], f"{started} pods"


def test_claims_of_intels_own_driver_are_taken_over(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    """The node is made to look as after Intel's driver: its checkpoint in place of our journal, its CDI file beside it."""
    ns.template("gpu")
    ns.pod("p", template="gpu", command=OPEN)
    ns.ready("p")
    [claim] = ns.api.list("ResourceClaim", ns.name)
    [result] = claim["status"]["allocation"]["devices"]["results"]
    device = {
        "Requests": ["gpu"],
        "PoolName": result["pool"],
        "DeviceName": result["device"],
        "CDIDeviceIDs": [f"intel.com/gpu={result['device']}"],
        "ShareID": None,
        "Metadata": {"Attributes": {}, "NetworkData": None},
    }
    checkpoint = {
        "kind": "PreparedClaimsCheckpoint",
        "apiVersion": "checkpoint.gpu.intel.com/v1",
        "PreparedClaims": {claim["metadata"]["uid"]: {"PreparedDevices": [{"AdminAccess": False, "KubeletpluginDevice": device}]}},
    }
    with driver.away():
        for file in node.state.glob("journal*"):
            file.unlink()
        (node.state / "preparedClaims.json").write_text(json.dumps(checkpoint))
    assert "took over 1 claims" in driver.log()
    assert driver.metric("claims") == 1
    ns.ready("p")
    ns.delete("p")
    driver.nothing_prepared()


def test_an_older_journal_is_read(driver: Driver, node: OwnNode, ns: Namespace) -> None:
    """As 0.1.0 wrote it. Kept as a recording: what a newer release writes and reads may change, this may not."""
    ns.template("gpu", request(cel='device.attributes["gpu.intel.com"].pciAddress == "0000:4d:00.0"'))
    ns.pod("p", template="gpu", command=OPEN)
    ns.ready("p")
    [claim] = ns.api.list("ResourceClaim", ns.name)
    recorded = (
        '{"bootId":"db981038-0e1f-436a-9be3-b1fadacaf48d","grantedAt":1795531412.0821395,"grants":[{"admin":false,"bdf":"0000:4d:00.0",'
        '"cdiIds":["intel.com/gpu=$uid-0000-4d-00-0-0x56c0"],"device":"0000-4d-00-0-0x56c0","monitor":false,"parent":null,"pool":"node1",'
        '"requests":["gpu"],"shareId":null}],"name":"$name","namespace":"$namespace","origin":null,"stage":"granted","uid":"$uid","v":1}'
    )
    recorded = Template(recorded).substitute(uid=claim["metadata"]["uid"], name=claim["metadata"]["name"], namespace=ns.name)
    with driver.away():
        for file in node.state.glob("journal*"):
            file.unlink()
        (node.state / "journal").write_bytes(b"%08x %s\n" % (zlib.crc32(recorded.encode()), recorded.encode()))
    assert driver.metric("claims") == 1
    ns.delete("p")
    driver.nothing_prepared()
