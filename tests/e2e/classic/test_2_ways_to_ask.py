"""Every way in which a claim can be written, as the examples for users do; of each nothing is left when its pods are gone."""

from __future__ import annotations

from dra import vf_profiles
from tests.e2e.api import Doc
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import COUNT, ClassicNamespace
from tests.e2e.pods import STAY
from tools.realcluster.node import until

OUTSIDE = f"mknod /tmp/card c 10 229; dd if=/tmp/card count=0 2>&1; ls /dev/dri; {STAY}"


def test_a_pod_opens_its_gpu_and_another_one_cannot(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("one-gpu")
    ns.pod("without", command=OUTSIDE)
    ns.ready("one-gpu", "without")
    assert ns.counted("one-gpu") == 1
    refused = ns.logs("without")
    assert "Operation not permitted" in refused and "/dev/dri: No such file or directory" in refused
    [part] = ns.parts()
    card = driver.cards()[part["uid"]]
    assert (part["memory"], part["millicores"]) == (card["memory"], 1000)


def test_several_gpus_in_one_claim(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("several-gpus")
    ns.ready("several-gpus")
    assert ns.counted("several-gpus") == 2
    assert len({part["uid"] for part in ns.parts()}) == 2


def test_pods_share_a_gpu_to_its_last_thousandth(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("shared")
    ns.ready("shared-a", "shared-b")
    assert ns.counted("shared-a") == ns.counted("shared-b") == 1
    [first, second] = ns.parts()
    assert first == second == {"uid": first["uid"], "memory": 4096, "millicores": 500}, "the first that has room"
    ns.ask("rest", of_class="intel-gpu-shared", count=len(driver.cards()), millicores=1)
    ns.pod("too-much", template="rest")
    ns.api.wait_event("too-much", "FailedScheduling", namespace=ns.name)
    ns.delete("shared-a")
    ns.ready("too-much", seconds=90)


def test_virtual_functions_are_made_for_a_claim_and_taken_away_after_it(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    assert driver.metric("vfs") == 0
    ns.example("virtual-functions")
    ns.ready("virtual-functions")
    assert ns.counted("virtual-functions") == 2
    [handle] = ns.handles().values()
    made = [part for part in handle["parts"] if "layout" in part]
    [[profile, _], *_] = made[0]["layout"]
    sizes = {one.name: one.memory_bytes >> 20 for one in vf_profiles.for_device("0x56c0")}
    assert sizes[profile] >= 4096
    assert driver.metric("vfs") == sum(count for part in made for _, count in part["layout"])
    ns.delete("virtual-functions")
    driver.nothing_held()


def test_a_second_claim_has_vfs_of_the_same_card(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("vf", count=1, type="vf", memory=4096)
    for pod in ("a", "b"):
        ns.pod(pod, template="vf", command=COUNT)
    ns.ready("a", "b")
    first, second = ns.parts()
    assert first["uid"] == second["uid"] and first["layout"] == second["layout"] and first["vfs"] != second["vfs"]
    ns.delete("a")
    assert driver.metric("vfs") != 0, "one is in use"


def test_an_administrators_vfs_are_given_away_one_by_one(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    # Those that the driver made for an earlier story have a profile, and may be on their way out.
    mine = {uid for uid, device in driver.inventory().items() if device["type"] == "vf" and not device.get("profile")}
    assert len(mine) == 4
    ns.ask("vf", count=4, type="vf")
    ns.pod("p", template="vf", command=COUNT)
    ns.ready("p")
    assert {part["uid"] for part in ns.parts()} == mine
    assert ns.counted("p") == 4
    until("no VF of the driver's own", lambda: driver.metric("vfs") == 0, seconds=30, look="the plugin's log")


def test_two_claims_of_one_pod(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("two-claims")
    ns.ready("two-claims")
    assert ns.counted("two-claims") == 2
    assert len(ns.handles()) == 2


def test_a_claim_outlives_its_pods_and_several_use_it(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("external-claim")
    ns.ready("external-a", "external-b")
    assert ns.counted("external-a") == ns.counted("external-b") == 1
    [claim] = ns.api.list("ResourceClaim", ns.name)
    assert {user["name"] for user in claim["status"]["reservedFor"]} == {"external-a", "external-b"}
    ns.delete("external-a", "external-b")
    driver.nothing_held()
    ns.pod("later", claim="external", command=COUNT)
    ns.ready("later")


def test_monitoring_sees_every_gpu_while_others_use_them(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.example("one-gpu")
    ns.ready("one-gpu")
    ns.example("monitor")
    ns.ready("monitor")
    assert ns.counted("monitor") == len(driver.discovered())
    ns.ask("rest", count=len(driver.cards()) - 1)
    ns.pod("rest", template="rest", command=COUNT)
    ns.ready("rest")


def test_an_immediate_claim_is_allocated_before_there_is_a_pod(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("early", mode="Immediate", as_template=False)

    def allocated(claims: dict[str, Doc]) -> bool:
        return bool(claims["early"].get("status", {}).get("allocation"))

    ns.api.wait("ResourceClaim", allocated, namespace=ns.name, what="an allocation without a pod")
    ns.example("immediate")
    ns.ready("immediate")
    assert ns.counted("immediate") == 1
    ns.delete("immediate")
    ns.empty()
    driver.nothing_held()


def test_who_comes_too_late_gets_it_when_the_first_one_goes(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("all", count=len(driver.cards()))
    ns.ask("one")
    ns.pod("first", template="all", command=COUNT)
    ns.ready("first")
    ns.pod("second", template="one", command=COUNT)
    ns.api.wait_event("second", "FailedScheduling", namespace=ns.name)
    ns.delete("first")
    ns.ready("second", seconds=90)


def test_more_pods_than_gpus_come_and_go(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("one")
    names = [f"p{number}" for number in range(3 * len(driver.cards()))]
    for name in names:
        ns.pod(name, template="one", command=COUNT.replace(STAY, "true"))
    ns.all_succeeded(names, seconds=300)
    ns.claims_gone()


def test_a_tainted_gpu_is_not_given_away(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    free = sorted(driver.cards())[-1]
    try:
        taint(driver, "--reason", "hot")
        ns.ask("one")
        ns.pod("p", template="one", command=COUNT)
        ns.api.wait_event("p", "FailedScheduling", namespace=ns.name)
        taint(driver, "--device", free, "--clear")
        ns.ready("p", seconds=90)
        assert [part["uid"] for part in ns.parts()] == [free]
    finally:
        taint(driver, "--clear")
    assert not driver.state()["spec"].get("taintedDevices")


def taint(driver: ClassicDriver, *options: str) -> None:
    """As an administrator does it, in a controller's pod."""
    pod = driver.controllers()[0]["metadata"]["name"]
    driver.kubectl("-n", driver.namespace, "exec", pod, "--", "gpu-controller", "taint", "--node", driver.node, *options)


def test_what_cannot_be_is_said_to_the_pod(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    ns.ask("wrong", count=1, millicores=500)  # of an exclusive class
    ns.pod("p", template="wrong")
    [claim] = ns.api.wait("ResourceClaim", list, namespace=ns.name, what="the pod's claim")
    said = ns.api.wait_event(claim, "InvalidParameters", namespace=ns.name)
    assert "spec.millicores" in said and "shared class" in said
