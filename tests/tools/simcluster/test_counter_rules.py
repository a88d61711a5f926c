"""What the server says of shared counters, release by release."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.simcluster.offers import cards, consumes, slice_of
from tools.simcluster import kinds, releases
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

RELEASES = ["1.33", "1.34", "1.35", "1.36", "1.37"]
TOGETHER, APART = RELEASES[:2], RELEASES[2:]


def server(kubernetes: str, *, partitions: bool = True) -> Registry:
    return Registry(Store(), releases.release(kubernetes, gates={"DRAPartitionableDevices": partitions}))


def counters(count: int, value: str = "1") -> dict[str, str]:
    return {f"c{index}": value for index in range(count)}


def a_set(name: str, count: int = 1) -> Json:
    return {"name": name, "counters": consumes("", **counters(count))["counters"]}


def device(*uses: Json, **more: Any) -> Json:
    return {"name": "gpu-0", "consumesCounters": list(uses), **more}


def refused(kubernetes: str, **spec: Any) -> set[str]:
    with pytest.raises(Refused) as caught:
        server(kubernetes).create(kinds.SLICE, slice_of("s", **spec))
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    return {cause["field"] for cause in caught.value.details["causes"]}


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_each_release_takes_its_own_layout(kubernetes: str) -> None:
    for body in cards(kubernetes, count=2, vfs=7):
        kept = server(kubernetes).create(kinds.SLICE, body)
        assert kept["spec"] == body["spec"]


@pytest.mark.parametrize("kubernetes", APART)
def test_sets_and_devices_in_one_slice_are_refused(kubernetes: str) -> None:
    assert refused(kubernetes, devices=[device(consumes("card", c0="1"))], sharedCounters=[a_set("card")]) == {"spec"}
    assert refused(kubernetes, devices=[], sharedCounters=[a_set("card")]) == {"spec"}, "an empty list is no missing one"


SETS = "spec.sharedCounters"
USES = "spec.devices[0].consumesCounters"


@pytest.mark.parametrize("kubernetes", RELEASES)
@pytest.mark.parametrize(
    ("sets", "field"),
    [
        ([a_set("")], f"{SETS}[0].name"),
        ([a_set("Card")], f"{SETS}[0].name"),
        ([a_set("card", 0)], f"{SETS}[0].counters"),
        ([{"name": "card", "counters": {"c_0": {"value": "1"}}}], f"{SETS}[0].counters"),
    ],
)
def test_sets_are_named_and_hold_something(kubernetes: str, sets: list[Json], field: str) -> None:
    assert refused(kubernetes, sharedCounters=sets) == {field}


@pytest.mark.parametrize(
    ("kubernetes", "sets", "field"),
    [
        ("1.34", [a_set("card")] * 2, f"{SETS}[1].name"),
        ("1.35", [a_set("card")] * 2, f"{SETS}[1]"),
        ("1.34", [a_set(f"card-{index}") for index in range(32)], None),
        ("1.34", [a_set(f"card-{index}") for index in range(33)], SETS),
        ("1.34", [a_set("card", 33)], SETS),
        ("1.35", [a_set(f"card-{index}", 32) for index in range(8)], None),
        ("1.35", [a_set(f"card-{index}") for index in range(9)], SETS),
        ("1.35", [a_set("card", 33)], f"{SETS}[0].counters"),
    ],
)
def test_how_many_counters_there_may_be(kubernetes: str, sets: list[Json], field: str | None) -> None:
    if field is None:
        assert server(kubernetes).create(kinds.SLICE, slice_of("s", sharedCounters=sets))["spec"]["sharedCounters"] == sets
    else:
        assert refused(kubernetes, sharedCounters=sets) == {field}


@pytest.mark.parametrize("kubernetes", RELEASES)
@pytest.mark.parametrize(
    ("use", "field"),
    [({"counterSet": "card", "counters": {}}, f"{USES}[0].counters"), (consumes("", c0="1"), f"{USES}[0].counterSet")],
)
def test_a_device_says_what_it_consumes_of_what(kubernetes: str, use: Json, field: str) -> None:
    sets = {"sharedCounters": [a_set("card")]} if kubernetes in TOGETHER else {}
    assert refused(kubernetes, devices=[device(use)], **sets) == {field}


@pytest.mark.parametrize(
    ("kubernetes", "uses", "field"),
    [
        ("1.34", [consumes("gone", c0="1")], f"{USES}[0].counterSet"),
        ("1.34", [consumes("one", c33="1")], f"{USES}[0].counters"),
        ("1.35", [consumes("gone", c33="1")], None),
        ("1.34", [consumes("one", c0="1")] * 2, f"{USES}[1].counterSet"),
        ("1.35", [consumes("one", c0="1")] * 2, f"{USES}[1]"),
        ("1.34", [consumes(name, c0="1") for name in ("one", "two", "three")], None),
        ("1.35", [consumes(name, c0="1") for name in ("one", "two", "three")], USES),
        ("1.35", [consumes(name, **counters(32)) for name in ("one", "two")], None),
        ("1.35", [consumes("one", **counters(33))], f"{USES}[0].counters"),
        ("1.35", [consumes("One", c0="1")], f"{USES}[0].counterSet"),
    ],
)
def test_what_a_device_may_consume(kubernetes: str, uses: list[Json], field: str | None) -> None:
    sets = {"sharedCounters": [a_set("one", 10), a_set("two", 10), a_set("three", 10)]} if kubernetes in TOGETHER else {}
    if field is None:
        assert server(kubernetes).create(kinds.SLICE, slice_of("s", devices=[device(*uses)], **sets))
    else:
        assert refused(kubernetes, devices=[device(*uses)], **sets) == {field}


@pytest.mark.parametrize(
    ("kubernetes", "devices", "each", "field"),
    [
        ("1.34", 128, 8, None),
        ("1.34", 128, 9, "spec.devices"),
        ("1.35", 64, 32, None),
        ("1.35", 65, 1, "spec.devices"),
    ],
)
def test_how_many_devices_may_consume(kubernetes: str, devices: int, each: int, field: str | None) -> None:
    spec: Json = {"devices": [device(consumes("card", **counters(each)), name=f"gpu-{index}") for index in range(devices)]}
    if kubernetes in TOGETHER:
        spec["sharedCounters"] = [a_set("card", 32)]
    if field is None:
        assert server(kubernetes).create(kinds.SLICE, slice_of("s", **spec))
    else:
        assert refused(kubernetes, **spec) == {field}


def test_more_counters_of_a_device_than_a_slice_has() -> None:
    many = device(consumes("one", **counters(20)), consumes("two", **counters(13)))
    assert "spec.devices[0]" in refused("1.34", devices=[many], sharedCounters=[a_set("one", 20), a_set("two", 12)])


@pytest.mark.parametrize(
    ("selection", "chosen", "field"),
    [
        (False, {"nodeName": "n"}, "spec.devices[0]"),
        (True, {}, "spec.devices[0]"),
        (True, {"nodeName": "n", "allNodes": True}, "spec.devices[0]"),
        (True, {"nodeName": "n"}, None),
    ],
)
def test_devices_choose_nodes_where_the_slice_lets_them(selection: bool, chosen: Json, field: str | None) -> None:
    body = slice_of("s", devices=[{"name": "gpu-0", **chosen}])
    if selection:
        del body["spec"]["nodeName"]
        body["spec"]["perDeviceNodeSelection"] = True
    if field is None:
        assert server("1.36").create(kinds.SLICE, body)["spec"]["devices"][0] == {"name": "gpu-0", **chosen}
        return
    with pytest.raises(Refused) as caught:
        server("1.36").create(kinds.SLICE, body)
    assert [cause["field"] for cause in caught.value.details["causes"]] == [field]


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_what_is_dropped_without_the_gate_stays_where_it_was(kubernetes: str) -> None:
    registry = server(kubernetes)
    for body in cards(kubernetes):
        registry.create(kinds.SLICE, body)
    registry.release = releases.release(kubernetes, gates={"DRAPartitionableDevices": False})
    for body in cards(kubernetes):
        kept = registry.amend(kinds.SLICE, body, lambda held: held["metadata"].update(labels={"a": "b"}))
        assert kept["spec"] == body["spec"]
        fresh = registry.create(kinds.SLICE, {**body, "metadata": {"name": f"new-{body['metadata']['name']}"}})
        assert "sharedCounters" not in fresh["spec"]
        assert not any("consumesCounters" in each for each in fresh["spec"].get("devices", []))


def test_a_feature_in_use_may_be_used_in_other_fields_too() -> None:
    """The gate is off, but the slice has counters already: it may get more of the same feature."""
    registry = server("1.34")
    [body] = cards("1.34")
    plain = {**body["spec"]["devices"][0], "consumesCounters": []}
    registry.create(kinds.SLICE, {**body, "spec": {**body["spec"], "devices": [plain]}})
    registry.release = releases.release("1.34")
    kept = registry.amend(kinds.SLICE, body, lambda held: held["spec"].update(devices=body["spec"]["devices"]))
    assert kept["spec"]["devices"] == body["spec"]["devices"]
