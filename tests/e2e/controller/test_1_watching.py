"""A controller beside a scheduler that allocates: it watches, taints what alerts are about, refuses wrong claims, whoever of two leads."""

from __future__ import annotations

import re

import pytest
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.e2e.controller.driver import WatchedDriver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import Namespace, opaque, request
from tools.realcluster import components
from tools.realcluster.faults import Faults
from tools.realcluster.node import until

NODE_DIES = 120.0
"""Seconds; of a silent kubelet the node controller thinks so after 40 or 50."""
KUBELET_LOOKS = 120.0
"""Seconds; the kubelet brings a changed Secret into its pods about once a minute."""


def test_two_controllers_run_and_one_leads(driver: WatchedDriver) -> None:
    until("one that leads", lambda: driver.leads("leading") == 1, seconds=60, look="the controllers' logs")
    leading = [driver.controller_metrics(pod) for pod in driver.controllers()]
    assert sorted(re.search(r"^intel_gpu_dra_leading (\d)", text, re.M)[1] for text in leading) == ["0", "1"]  # type: ignore[index]
    for pod in driver.controllers():
        assert not re.search(r"\b(ERROR|Traceback)\b", driver.controller_log(pod))


def test_a_killed_leader_is_followed_by_the_other(driver: WatchedDriver, node: OwnNode) -> None:
    dead = driver.kill_leader(node)
    assert driver.other_leads(dead) != dead


@pytest.mark.parametrize("kind", ["claim", "template"])
def test_a_wrong_configuration_is_refused_when_it_is_written(driver: WatchedDriver, ns: Namespace, kind: str) -> None:
    write = ns.claim if kind == "claim" else ns.template
    write("right", request(), config=opaque(sharing="exclusive"))
    with pytest.raises(DynamicApiError) as refused:
        write("wrong", request(), config=opaque(sharing="sometimes"))
    assert "is none of exclusive, shared" in str(refused.value.body) and "wrong" in str(refused.value.body)


def test_the_one_that_does_not_lead_judges_claims_too(driver: WatchedDriver, node: OwnNode, ns: Namespace) -> None:
    killed = driver.leader()
    driver.other_leads(driver.kill_leader(node))
    driver.restarted(killed)
    for number in range(6):  # the API server asks any of them that is Ready
        ns.claim(f"right{number}", request())
    with pytest.raises(DynamicApiError):
        ns.claim("wrong", request(), config=opaque(driver="nouveau"))


def test_a_renewed_certificate_is_served_without_a_restart(driver: WatchedDriver, ns: Namespace) -> None:
    restarts = [status["restartCount"] for pod in driver.controllers() for status in pod["status"]["containerStatuses"]]
    driver.certify()
    driver.trust()
    driver.refresh_certificate()
    names = iter(range(10_000))

    def refused() -> bool:
        try:
            ns.claim(f"wrong{next(names)}", request(), config=opaque(driver="nouveau"))
        except DynamicApiError:
            return True
        return False

    for _ in driver.controllers():
        until("a refusal with the new certificate", refused, seconds=int(KUBELET_LOOKS), look="the controllers' logs")
    assert restarts == [status["restartCount"] for pod in driver.controllers() for status in pod["status"]["containerStatuses"]]


def test_an_alert_keeps_pods_away_until_it_is_resolved_though_the_leader_dies(driver: WatchedDriver, node: OwnNode, ns: Namespace) -> None:
    hot = min(name for name in driver.devices() if "-00-0-" in name)  # a card, not one of the VFs of another
    driver.alert("firing", hot)
    until(f"a taint of {hot}", lambda: driver.tainted() == {hot}, seconds=30, look="the controllers' logs")
    ns.template("hot", request(cel=f'device.attributes["gpu.intel.com"].pciAddress == "0000:{hot[5:7]}:{hot[8:10]}.{hot[11]}"'))
    ns.template("any")
    ns.pod("waits", template="hot")
    ns.pod("elsewhere", template="any")
    ns.ready("elsewhere")
    ns.api.wait_event("waits", "FailedScheduling", namespace=ns.name)
    dead = driver.kill_leader(node)
    driver.other_leads(dead)
    driver.wait_ready()
    assert driver.tainted() == {hot}
    driver.alert("resolved", hot)
    until("no taint", lambda: not driver.tainted(), seconds=30, look="the controllers' logs")
    ns.ready("waits")


def test_a_notification_that_is_none_is_refused(driver: WatchedDriver) -> None:
    pod = driver.controllers()[0]["metadata"]["name"]
    with pytest.raises(ApiException) as refused:
        driver.api.raw_post(f"/api/v1/namespaces/{driver.namespace}/pods/{pod}:9178/proxy/alertmanager/api/v1/alerts", {"alerts": 3})
    assert refused.value.status == 400


def test_by_hand_a_gpu_is_tainted_and_cleared(driver: WatchedDriver) -> None:
    device = sorted(driver.devices())[-1]
    pod = driver.controllers()[0]["metadata"]["name"]

    def taint(*words: str) -> str:
        command = ("gpu-controller", "taint", "--node", driver.node, "--device", device, *words)
        return driver.kubectl("-n", driver.namespace, "exec", pod, "--", *command)

    taint("--reason", "repair")
    until(f"a taint of {device}", lambda: driver.tainted() == {device}, seconds=30, look="the command's output")
    assert "repair" in taint()
    taint("--clear")
    until("no taint", lambda: not driver.tainted(), seconds=30, look="the command's output")


def test_slices_that_vanish_while_the_plugin_hangs_are_told_of(driver: WatchedDriver, node: OwnNode) -> None:
    until("a leader", lambda: driver.leads("incidents") == 0, seconds=60, look="the controllers' logs")
    with node.frozen():
        for each in driver.slices():
            driver.api.delete("ResourceSlice", each["metadata"]["name"])
        # The metric first: an Event may be of an earlier run on the same cluster.
        until("an incident", lambda: driver.leads("incidents", reason="SlicesMissing") == 1, seconds=30, look="the leader's log")
        assert "has published nothing" in driver.api.wait_event(driver.node, "SlicesMissing")
    until("its end", lambda: driver.leads("incidents", reason="SlicesMissing") == 0, seconds=60, look="the leader's log")
    driver.api.wait_event(driver.node, "SlicesMissingEnded")


def test_a_claim_on_a_dead_node_is_told_of(driver: WatchedDriver, faults: Faults, ns: Namespace) -> None:
    ns.claim("held")
    ns.pod("p", claim="held")
    ns.ready("p")
    faults.freeze(components.KUBELET)
    try:
        said = driver.api.wait_event("held", "ClaimOnDeadNode", namespace=ns.name, seconds=NODE_DIES)
        assert driver.node in said and "pods/p" in said
    finally:
        faults.thaw(components.KUBELET)
    driver.api.wait_event("held", "ClaimOnDeadNodeEnded", namespace=ns.name)
