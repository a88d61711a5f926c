"""Devices that share counters: a card and its VFs are never both given away, whoever asks for what in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.structured import pools
from dra.structured.allocator import Allocator, Broken, Unschedulable
from tests.tools.simcluster.offers import (
    CLASSES,
    DRIVER,
    NODE,
    allocate,
    allocated,
    allocations,
    cards,
    claim,
    consumes,
    counter_sets,
    everything,
    exactly,
    first_of,
    holding,
    names,
    only,
    slice_of,
    typed,
)
from tools.simcluster import kinds, releases
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import Json
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

RELEASES = ["1.33", "1.34", "1.35", "1.36", "1.37"]
ON: dict[str, bool] = {"DRAPartitionableDevices": True}


@pytest.mark.parametrize("kubernetes", RELEASES)
@pytest.mark.parametrize(
    ("held", "request_", "expected"),
    [
        ([], exactly(), ["pf-0"]),
        ([], exactly(count=2), ["vf-0-0", "vf-0-1"]),
        ([], exactly(count=3), None),
        (["pf-0"], exactly(), None),
        (["vf-0-1"], exactly(), ["vf-0-0"]),
        (["vf-0-1"], exactly(**only("gpu")), None),
        (["vf-0-0", "vf-0-1"], exactly(), None),
        ([], everything(), None),
        ([], everything(**only("vf")), ["vf-0-0", "vf-0-1"]),
        (["pf-0"], everything(**only("vf")), None),
        (["vf-0-0"], first_of(exactly("whole", **only("gpu")), exactly("part", **only("vf"))), ["vf-0-1"]),
        ([], first_of(exactly("many", count=3), exactly("two", count=2)), ["vf-0-0", "vf-0-1"]),
    ],
)
def test_a_card_and_its_parts(kubernetes: str, held: list[str], request_: Json, expected: list[str] | None) -> None:
    def ask() -> list[str]:
        return names(allocate(cards(kubernetes), claim(request_), kubernetes, [holding(*held)], **ON))

    if expected is None:
        with pytest.raises(Unschedulable):
            ask()
    else:
        assert ask() == expected


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_all_vfs_of_a_layout_fit_exactly(kubernetes: str) -> None:
    slices = cards(kubernetes, count=2, vfs=8)
    results = allocate(slices, claim(exactly(count=16)), kubernetes, **ON)
    assert names(results) == [f"vf-{card}-{index}" for card in range(2) for index in range(8)]
    with pytest.raises(Unschedulable):
        allocate(slices, claim(exactly()), kubernetes, [allocated({"devices": {"results": results}})], **ON)


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_an_earlier_claim_of_the_pod_makes_room_for_a_later_one(kubernetes: str) -> None:
    claims = [claim(exactly()), claim(exactly("a", **only("vf")), exactly("b"))]
    first, second = allocations(cards(kubernetes, vfs=3), claims, kubernetes, **ON)
    assert names(first["devices"]["results"]) == ["vf-0-0"], "not the card, which is the first that fits"
    assert names(second["devices"]["results"]) == ["vf-0-1", "vf-0-2"]


@pytest.mark.parametrize(("kubernetes", "gates"), [("1.33", {}), ("1.35", {}), ("1.36", {"DRAPartitionableDevices": False})])
def test_with_the_gate_off_a_card_and_its_part_are_both_given_away(kubernetes: str, gates: dict[str, bool]) -> None:
    """What a driver must notice: the server drops the counters without a word."""
    server = Registry(Store(), releases.release(kubernetes, gates=gates))
    kept = [server.create(kinds.SLICE, each) for each in cards(kubernetes)]
    assert not [key for each in kept for key in ("sharedCounters",) if key in each["spec"]]
    assert names(allocate(kept, claim(exactly(count=2)), kubernetes, **gates)) == ["pf-0", "vf-0-0"]


def test_a_scheduler_with_the_gate_off_leaves_what_it_cannot_count() -> None:
    with pytest.raises(Unschedulable):
        allocate(cards("1.36"), claim(exactly()), "1.36", DRAPartitionableDevices=False)


@pytest.mark.parametrize(
    ("slices", "why"),
    [
        ([slice_of("s", devices=[typed("d", "gpu", consumesCounters=[consumes("gone", vfs="1")])])], "counter set gone not found"),
        (
            [
                slice_of("a", count=2, sharedCounters=counter_sets(1, 2)),
                slice_of("b", count=2, devices=[typed("d", "gpu", consumesCounters=[consumes("card-0", doorbells="1")])]),
            ],
            "counter doorbells not found in counter set card-0",
        ),
        ([slice_of(name, count=2, sharedCounters=counter_sets(1, 2)) for name in ("a", "b")], "duplicate counter set name card-0"),
    ],
)
def test_a_pool_that_cannot_be_counted_is_passed_over(slices: list[Json], why: str) -> None:
    with pytest.raises(Broken, match=why):
        allocate(slices, claim(exactly()), "1.36")
    with pytest.raises(Broken, match="currently invalid"):
        allocate(slices, claim(everything()), "1.36")
    other = slice_of("z", devices=[typed("other", "gpu")])
    other["spec"]["pool"]["name"] = "elsewhere"
    assert names(allocate([*slices, other], claim(exactly()), "1.36")) == ["other"]


def test_a_slice_of_an_older_layout_offers_nothing_after_the_upgrade() -> None:
    old = cards("1.34")
    assert names(allocate(old, claim(exactly()), "1.34", **ON)) == ["pf-0"]
    with pytest.raises(Unschedulable):
        allocate(old, claim(exactly()), "1.35", **ON)


@pytest.mark.parametrize(("kubernetes", "expected"), [("1.34", ["lone"]), ("1.36", None)])
def test_an_overdrawn_counter_keeps_back_all_that_is_counted_with_it(kubernetes: str, expected: list[str] | None) -> None:
    """Up to 1.34 that of its slice, afterwards that of its pool: a set that shrinks below what is given away blocks other cards."""
    lone = typed("lone", "gpu", consumesCounters=[consumes("card-9", vfs="1")])
    sets = [{"name": "card-9", "counters": {"vfs": {"value": "1"}}}]
    shrunk = cards(kubernetes)
    for each in shrunk:
        for entry in each["spec"].get("sharedCounters", ()):
            entry["counters"] = {**entry["counters"], "vfs": {"value": "1"}}
    more = [slice_of("c", count=4, devices=[lone], sharedCounters=sets)]
    if kubernetes == "1.36":
        more = [slice_of("c", count=4, devices=[lone]), slice_of("d", count=4, sharedCounters=sets)]
        for each in shrunk:
            each["spec"]["pool"]["resourceSliceCount"] = 4
    held = [holding("vf-0-0", "vf-0-1")]
    if expected is None:
        with pytest.raises(Unschedulable):
            allocate([*shrunk, *more], claim(exactly()), kubernetes, held, **ON)
    else:
        assert names(allocate([*shrunk, *more], claim(exactly()), kubernetes, held, **ON)) == expected


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_admin_access_takes_nothing_but_needs_what_is_left(kubernetes: str) -> None:
    slices, admin = cards(kubernetes), claim(exactly(adminAccess=True, **only("gpu")))
    gates = {**ON, "DRAAdminAccess": True} if kubernetes == "1.33" else ON
    assert names(allocate(slices, claim(exactly(count=2)), kubernetes, [holding("pf-0", adminAccess=True)], **gates)) == [
        "vf-0-0",
        "vf-0-1",
    ]
    [result] = allocate(slices, admin, kubernetes, **gates)
    assert (result["device"], result["adminAccess"]) == ("pf-0", True)
    with pytest.raises(Unschedulable):
        allocate(slices, admin, kubernetes, [holding("vf-0-0")], **gates)


REQUESTS = [exactly(), exactly(**only("gpu")), exactly(**only("vf")), exactly(count=2), everything(**only("vf")), exactly("a", count=3)]


@given(
    st.sampled_from(RELEASES),
    st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=2), st.integers(0, 9)), max_size=8),
)
def test_no_counter_is_ever_overdrawn(kubernetes: str, steps: list[tuple[bool, list[Json], int]]) -> None:
    slices = cards(kubernetes, count=2, vfs=3)
    release = releases.release(kubernetes, gates=ON)
    held: list[Json] = []
    for releases_one, requests, index in steps:
        if releases_one and held:
            held.pop(index % len(held))
            continue
        named = [{**request, "name": f"r{number}"} for number, request in enumerate(requests)]
        allocator = Allocator(pools.gather(slices, NODE, [], release), CLASSES, held, release)
        try:
            held += [allocated(each) for each in allocator.allocate([claim(request) for request in named])]
        except Unschedulable:
            continue
        given_away = [name for each in held for name in names(each["status"]["allocation"]["devices"]["results"])]
        assert len(set(given_away)) == len(given_away)
        for card in range(2):
            parts = [name for name in given_away if name.startswith(f"vf-{card}-")]
            assert not (f"pf-{card}" in given_away and parts)


async def test_the_scheduler_gives_a_pod_two_vfs_and_the_next_none(tmp_path: Any) -> None:
    async with SimCluster(str(tmp_path), kubernetes="1.36", with_kubelet=False, classes=None).running() as cluster:
        cluster.create(kinds.NODE, {"metadata": {"name": NODE}})
        cluster.create_class("gpu", f'device.driver == "{DRIVER}"')
        for each in cards("1.36"):
            cluster.create(kinds.SLICE, each)
        for name in ("one", "two", "three"):
            cluster.create_claim(name, device_class="gpu", selectors=only("vf")["selectors"] if name != "three" else [])
        cluster.create_pod("p", claims={"one": "one", "two": "two"})
        await cluster.wait(kinds.POD, lambda pods: all(pod["spec"].get("nodeName") for pod in pods), "bound")
        assert {names(cluster.claim(each)["status"]["allocation"]["devices"]["results"])[0] for each in ("one", "two")} == {
            "vf-0-0",
            "vf-0-1",
        }
        cluster.create_pod("q", claims={"gpu": "three"})
        assert "cannot allocate all claims" in await cluster.wait_event("q", "FailedScheduling")
        cluster.delete_pod("p", grace_seconds=0)
        await cluster.wait(kinds.POD, lambda pods: len(pods) == 1 and bool(pods[0]["spec"].get("nodeName")), "the card given away")
        assert names(cluster.claim("three")["status"]["allocation"]["devices"]["results"]) == ["pf-0"]
