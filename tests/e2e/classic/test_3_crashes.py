"""Controllers, the plugin, the kubelet and the node die: pods keep what they have, and those that wait get what they ask for."""

from __future__ import annotations

from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import COUNT, ClassicNamespace
from tests.e2e.own_node import OwnNode
from tools.realcluster import components
from tools.realcluster.faults import Faults

KUBELET_COMES_BACK = 150.0
"""Seconds; after a prepare that failed, or found no driver, the kubelet comes back only after up to a minute and a half."""
LEASE_RUNS_OUT = 120.0
"""Seconds, more than twice what a plugin's Lease lasts."""


def test_the_second_controller_takes_over_from_one_that_was_killed(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.pod("before", template="one", command=COUNT)
    ns.ready("before")
    dead = driver.kill_leader(node)
    ns.pod("after", template="one", command=COUNT)
    driver.other_leads(dead)
    ns.ready("before", "after", seconds=90)
    assert len({part["uid"] for part in ns.parts()}) == 2


def test_a_leader_that_is_stopped_hands_over_at_once(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("one")
    holder, pod = driver.holder(), driver.leader()
    driver.api.delete("Pod", pod["metadata"]["name"], driver.namespace)
    ns.pod("p", template="one", command=COUNT)
    ns.ready("p", seconds=20)
    assert driver.holder() != holder


def test_pods_that_wait_for_a_controller_get_their_gpus_when_there_is_one(
    driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace
) -> None:
    ns.ask("one")
    ns.ask("vf", count=1, type="vf", memory=4096)
    ns.pod("kept", template="one", command=COUNT)
    ns.ready("kept")
    driver.scale(0)
    try:
        for number in range(3):
            ns.pod(f"waits{number}", template="one" if number else "vf", command=COUNT)
        ns.api.wait_event("waits0", "FailedScheduling", namespace=ns.name)
        ns.api.delete("Pod", "kept", ns.name)
    finally:
        driver.scale(2)
    ns.ready("waits0", "waits1", "waits2", seconds=120)


def test_controllers_killed_all_the_time_lose_and_double_nothing(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    ns.ask("one")
    names = [f"p{number}" for number in range(2 * len(driver.cards()))]
    for number, name in enumerate(names):
        ns.pod(name, template="one", command="sleep 1")
        if number % len(driver.cards()) == 3:
            dead = driver.kill_leader(node)
            driver.other_leads(dead)
    ns.all_succeeded(names, seconds=300)
    ns.claims_gone()


def test_a_killed_plugin_comes_back_and_pods_do_not_notice(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.ask("vf", count=1, type="vf", memory=4096)
    ns.pod("before", template="one", command=COUNT)
    ns.pod("vf", template="vf", command=COUNT)
    ns.ready("before", "vf")
    kept, vfs = driver.cdi_files(), driver.metric("vfs")
    node.kill()
    driver.wait_ready()
    assert (driver.cdi_files(), driver.metric("vfs")) == (kept, vfs)
    ns.pod("after", template="one", command=COUNT)
    ns.ready("before", "vf", "after", seconds=KUBELET_COMES_BACK)


def test_a_plugin_killed_while_it_makes_vfs_makes_them_in_its_next_life(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    driver.machine("delay", "sriov", "3")
    try:
        ns.ask("vf", count=1, type="vf", memory=4096)
        ns.pod("p", template="vf", command=COUNT)
        driver.wait_log("making")
        node.kill()
        driver.wait_ready()
        ns.ready("p", seconds=KUBELET_COMES_BACK)
    finally:
        driver.machine("delay", "sriov", "0")


def test_a_pod_deleted_while_the_plugin_is_away_is_cleaned_up_when_it_is_back(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("vf", count=1, type="vf", memory=4096)
    ns.pod("p", template="vf", command=COUNT)
    ns.ready("p")
    with driver.away():
        ns.api.delete("Pod", "p", ns.name)
    ns.api.wait_gone("Pod", "p", ns.name, seconds=KUBELET_COMES_BACK)
    driver.wait_ready(seconds=90)


def test_a_restarted_kubelet_finds_the_driver_again(driver: ClassicDriver, faults: Faults, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.pod("before", template="one", command=COUNT)
    ns.ready("before")
    faults.restart(components.KUBELET)
    ns.pod("after", template="one", command=COUNT)
    ns.ready("before", "after", seconds=KUBELET_COMES_BACK)
    ns.delete("before", "after")
    assert driver.restarts() == 0


def test_a_node_whose_plugin_is_away_gets_no_pods(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("one")
    with driver.away():
        driver.state_is("NotReady")
        ns.pod("p", template="one", command=COUNT)
        ns.api.wait_event("p", "FailedScheduling", namespace=ns.name)
        assert not ns.handles()
    driver.wait_ready()
    ns.ready("p", seconds=KUBELET_COMES_BACK)


def test_a_node_whose_plugin_hangs_gets_no_pods(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    ns.ask("one")
    with node.frozen():
        driver.until_not_ready(seconds=LEASE_RUNS_OUT)
        assert driver.state()["status"] == "Ready", "it could not say otherwise"
        ns.pod("p", template="one", command=COUNT)
        ns.api.wait_event("p", "FailedScheduling", namespace=ns.name)
    driver.wait_ready(seconds=90)
    ns.ready("p", seconds=KUBELET_COMES_BACK)


def test_after_a_reboot_pods_have_the_same_devices(driver: ClassicDriver, node: OwnNode, faults: Faults, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.ask("vf", count=1, type="vf", memory=4096)
    ns.pod("p", template="one", command=COUNT, restart="Always")
    ns.pod("vf", template="vf", command=COUNT, restart="Always")
    ns.ready("p", "vf")
    held = ns.handles()
    faults.power_off()
    node.forget_machine()
    faults.power_on()
    node.cluster.node.join_network()
    ns.ready_again("p", seconds=KUBELET_COMES_BACK)
    ns.ready("vf", seconds=KUBELET_COMES_BACK)
    assert (ns.counted("p"), ns.counted("vf")) == (1, 1)
    assert ns.handles() == held
    driver.wait_ready(seconds=KUBELET_COMES_BACK)


def test_an_api_server_that_is_away_for_a_while_harms_nobody(driver: ClassicDriver, faults: Faults, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.pod("before", template="one", command=COUNT)
    ns.ready("before")
    faults.restart(components.API_SERVER)
    ns.pod("after", template="one", command=COUNT)
    ns.ready("before", "after", seconds=KUBELET_COMES_BACK)
    driver.wait_ready(seconds=90)
