"""Devices that several claims share: what each gets, that together they get no more than there is, and what results say of it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.structured.allocator import Broken, Unschedulable
from tests.tools.simcluster.offers import (
    DRIVER,
    NODE,
    allocate,
    allocated,
    allocations,
    asks,
    cards,
    claim,
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
from tools.simcluster import names as grammar
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import Json
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

RELEASES = ["1.34", "1.35", "1.36", "1.37"]
ON = {"DRAConsumableCapacity": True, "DRAPartitionableDevices": True}
MEMORY = {"value": "16Gi", "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "step": "512Mi"}}}
CORES = {"value": "1000", "requestPolicy": {"default": "250", "validValues": ["250", "500", "1000"]}}


def gpu(name: str = "gpu-0", **more: Any) -> Json:
    return typed(name, "gpu", allowMultipleAllocations=True, capacity={"memory": MEMORY, "millicores": CORES}, **more)


SHARED = [slice_of("s", devices=[gpu()])]


@pytest.mark.parametrize("kubernetes", RELEASES)
@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({}, {"memory": "1Gi", "millicores": "250"}),
        ({"memory": "3Gi"}, {"memory": "3Gi", "millicores": "250"}),
        ({"memory": "2.1Gi"}, {"memory": "2560Mi", "millicores": "250"}),
        ({"memory": "1"}, {"memory": "1Gi", "millicores": "250"}),
        ({"millicores": "251"}, {"memory": "1Gi", "millicores": "500"}),
        ({"millicores": "1k"}, {"memory": "1Gi", "millicores": "1k"}),
        ({"millicores": "1001"}, None),
        ({"memory": "17Gi"}, None),
        ({"vram": "1Gi"}, None),
        # As it is published, not with the driver's domain before it.
        ({f"{DRIVER}/memory": "1Gi"}, None),
    ],
)
def test_what_is_asked_is_rounded_up_to_what_the_policy_knows(kubernetes: str, wanted: dict[str, str], got: dict[str, str] | None) -> None:
    if got is None:
        with pytest.raises(Unschedulable):
            allocate(SHARED, claim(asks(**wanted)), kubernetes, **ON)
        return
    [result] = allocate(SHARED, claim(asks(**wanted)), kubernetes, **ON)
    assert result["consumedCapacity"] == got
    assert str(uuid.UUID(result["shareID"])) == result["shareID"]


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_shares_add_up_to_the_device_and_the_next_claim_goes_elsewhere(kubernetes: str) -> None:
    held: list[Json] = []
    for _ in range(4):
        [allocation] = allocations(SHARED, [claim(exactly())], kubernetes, held, **ON)
        held.append(allocated(allocation))
    shares = [each["status"]["allocation"]["devices"]["results"][0]["shareID"] for each in held]
    assert len(set(shares)) == 4
    with pytest.raises(Unschedulable):
        allocate(SHARED, claim(exactly()), kubernetes, held, **ON)
    more = [*SHARED, slice_of("t", devices=[gpu("gpu-1")])]
    more[1]["spec"]["pool"]["name"] = "other"
    assert names(allocate(more, claim(exactly()), kubernetes, held, **ON)) == ["gpu-1"]
    assert names(allocate(SHARED, claim(exactly()), kubernetes, held[1:], **ON)) == ["gpu-0"]


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_claims_and_requests_of_one_pod_share_too(kubernetes: str) -> None:
    claims = [claim(asks("a", memory="6Gi"), asks("b", memory="6Gi")), claim(asks(memory="4Gi"))]
    first, second = allocations(SHARED, claims, kubernetes, **ON)
    results = first["devices"]["results"] + second["devices"]["results"]
    assert names(results) == ["gpu-0"] * 3
    assert len({result["shareID"] for result in results}) == 3
    with pytest.raises(Unschedulable):
        allocations(SHARED, [claims[0], claim(asks(memory="5Gi"))], kubernetes, **ON)


@pytest.mark.parametrize(("kubernetes", "devices"), [("1.35", ["gpu-0", "gpu-0"]), ("1.36", ["gpu-0", "gpu-1"])])
def test_a_request_for_two_gets_two_devices_from_1_36_on(kubernetes: str, devices: list[str]) -> None:
    slices = [slice_of("s", devices=[gpu(), gpu("gpu-1")])]
    assert names(allocate(slices, claim(exactly(count=2)), kubernetes, **ON)) == devices


@pytest.mark.parametrize(("kubernetes", "found"), [("1.36", ["gpu-1"]), ("1.37", None)])
def test_all_devices_are_those_that_have_the_capacity(kubernetes: str, found: list[str] | None) -> None:
    """Up to 1.36 those that have it left; afterwards those that have it at all, and then one that is full is in the way."""
    slices = [slice_of("s", devices=[gpu(), gpu("gpu-1"), typed("small", "gpu", capacity={"memory": {"value": "1Gi"}})])]
    wanted = claim(everything(capacity={"requests": {"memory": "2Gi"}}))
    assert names(allocate(slices, wanted, kubernetes)) == ["gpu-0", "gpu-1"]
    full = [holding("gpu-0", shareID=str(uuid.uuid4()), consumedCapacity={"memory": "16Gi"})]
    if found is None:
        with pytest.raises(Unschedulable):
            allocate(slices, wanted, kubernetes, full)
    else:
        assert names(allocate(slices, wanted, kubernetes, full)) == found


def test_a_device_of_its_own_must_be_large_enough_and_is_not_shared() -> None:
    slices = [slice_of("s", devices=[typed("one", "gpu", capacity={"memory": {"value": "8Gi"}})])]
    [result] = allocate(slices, claim(asks(memory="8Gi")), "1.36")
    assert "shareID" not in result and "consumedCapacity" not in result
    with pytest.raises(Unschedulable):
        allocate(slices, claim(asks(memory="9Gi")), "1.36")
    with pytest.raises(Unschedulable):
        allocate(slices, claim(asks(memory="1Gi")), "1.36", [holding("one")])


def test_with_the_gate_off_a_device_is_given_away_whole() -> None:
    server = Registry(Store(), releases.release("1.35"))
    kept = [server.create(kinds.SLICE, each) for each in SHARED]
    assert kept[0]["spec"]["devices"][0]["capacity"]["memory"] == {"value": "16Gi"}
    [result] = allocate(kept, claim(exactly()), "1.35")
    assert "shareID" not in result
    with pytest.raises(Unschedulable):
        allocate(kept, claim(exactly()), "1.35", [holding("gpu-0")])
    with pytest.raises(Broken, match="DRAConsumableCapacity feature is disabled"):
        allocate(kept, claim(asks(memory="1Gi")), "1.35")
    with pytest.raises(Unschedulable):
        allocate(SHARED, claim(exactly()), "1.36", [holding("gpu-0", shareID=str(uuid.uuid4()))], DRAConsumableCapacity=False)


def test_admin_access_takes_no_capacity() -> None:
    seen = holding("gpu-0", adminAccess=True, shareID=str(uuid.uuid4()), consumedCapacity={"memory": "16Gi"})
    assert names(allocate(SHARED, claim(asks(memory="16Gi")), "1.36", [seen])) == ["gpu-0"]


@pytest.mark.parametrize(("kubernetes", "overlap"), [("1.34", True), ("1.35", True), ("1.36", False), ("1.37", False)])
def test_shares_of_a_card_keep_its_vfs_back_from_1_36_on(kubernetes: str, overlap: bool) -> None:
    slices = cards(kubernetes, allowMultipleAllocations=True, capacity={"memory": MEMORY})
    share = holding("pf-0", shareID=str(uuid.uuid4()), consumedCapacity={"memory": "1Gi"})
    if overlap:
        assert names(allocate(slices, claim(exactly(**only("vf"))), kubernetes, [share], **ON)) == ["vf-0-0"]
    else:
        with pytest.raises(Unschedulable):
            allocate(slices, claim(exactly(**only("vf"))), kubernetes, [share], **ON)
        assert names(allocate(slices, claim(exactly()), kubernetes, [share], **ON)) == ["pf-0"], "a second share takes no counters"
    if kubernetes != "1.34":
        first, second = allocations(slices, [claim(exactly()), claim(exactly())], kubernetes, **ON)
        assert names(first["devices"]["results"] + second["devices"]["results"]) == ["pf-0", "pf-0"]


def test_distinct_attribute_spreads_shares_over_devices() -> None:
    slices = [slice_of("s", devices=[gpu(), gpu("gpu-1")])]
    for index, device in enumerate(slices[0]["spec"]["devices"]):
        device["attributes"]["index"] = {"int": index}
    requests = [asks("a", memory="1Gi"), asks("b", memory="1Gi")]
    assert names(allocate(slices, claim(*requests), "1.36")) == ["gpu-0", "gpu-0"]
    spread = claim(*requests, constraints=[{"distinctAttribute": f"{DRIVER}/index"}])
    assert names(allocate(slices, spread, "1.36")) == ["gpu-0", "gpu-1"]


def test_a_constraint_that_all_devices_cannot_meet_ends_the_attempt() -> None:
    wanted = claim(
        first_of(everything("all"), exactly("one")),
        constraints=[{"matchAttribute": f"{DRIVER}/type"}, {"distinctAttribute": f"{DRIVER}/type"}],
    )
    with pytest.raises(Broken, match="constraint would not be satisfied"):
        allocate([slice_of("s", devices=[typed("a", "gpu"), typed("b", "gpu")])], wanted, "1.36")


@given(
    st.sampled_from(RELEASES),
    st.lists(st.tuples(st.booleans(), st.sampled_from(["1Gi", "2.1Gi", "5Gi", "16Gi"]), st.integers(1, 2), st.integers(0, 9)), max_size=12),
)
def test_no_capacity_is_ever_overdrawn(kubernetes: str, steps: list[tuple[bool, str, int, int]]) -> None:
    slices = [slice_of("s", devices=[gpu(), gpu("gpu-1")])]
    held: list[Json] = []
    for releases_one, memory, count, index in steps:
        if releases_one and held:
            held.pop(index % len(held))
            continue
        try:
            held += map(
                allocated,
                allocations(slices, [claim(exactly(count=count, capacity={"requests": {"memory": memory}}))], kubernetes, held, **ON),
            )
        except Unschedulable:
            continue
        results = [result for each in held for result in each["status"]["allocation"]["devices"]["results"]]
        assert len({result["shareID"] for result in results}) == len(results)
        for device in ("gpu-0", "gpu-1"):
            for name, offered in (("memory", MEMORY), ("millicores", CORES)):
                taken = sum(grammar.quantity(result["consumedCapacity"][name]) for result in results if result["device"] == device)
                assert taken <= grammar.quantity(offered["value"])


async def test_the_server_keeps_what_the_scheduler_says_of_a_share(tmp_path: Any) -> None:
    async with SimCluster(str(tmp_path), kubernetes="1.36", with_kubelet=False, classes=None).running() as cluster:
        cluster.create(kinds.NODE, {"metadata": {"name": NODE}})
        cluster.create_class("gpu", f'device.driver == "{DRIVER}"')
        cluster.create(kinds.SLICE, SHARED[0])
        for name in ("one", "two"):
            cluster.create_claim(name, device_class="gpu", capacity={"requests": {"memory": "2Gi"}})
            cluster.create_pod(name, claims={"gpu": name})
        await cluster.wait(kinds.POD, lambda pods: all(pod["spec"].get("nodeName") for pod in pods), "bound")
        results = [cluster.claim(name)["status"]["allocation"]["devices"]["results"][0] for name in ("one", "two")]
        assert [result["consumedCapacity"] for result in results] == [{"memory": "2Gi", "millicores": "250"}] * 2
        assert results[0]["shareID"] != results[1]["shareID"]
