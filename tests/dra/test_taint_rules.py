"""Rules for devices: which are ours, and what makes them say what they should."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dra import slices, taint_rules
from dra.names import DeviceName
from dra.pool import Device, Effect, Pool
from dra.slices import SliceApi
from dra.taint_rules import ILLEGIBLE, Change, Create, Delete, Published

CARD, VF = DeviceName("0000-03-00-0-0x56c0"), DeviceName("0000-03-00-1-0x56c0")
OTHER = DeviceName("0000-04-00-0-0x56c0")


def created(*, effect: Effect = Effect.NO_SCHEDULE, **reasons: frozenset[str]) -> list[dict[str, Any]]:
    wanted = {DeviceName(device.replace("_", "-")): given for device, given in reasons.items()}
    writes = taint_rules.writes({}, wanted, node="n1", effect=effect, owner={"kind": "Node", "name": "n1", "uid": "u"})
    bodies = [write.body for write in writes if isinstance(write, Create)]
    return [{**body, "metadata": {**body["metadata"], "uid": "u1", "resourceVersion": "5"}} for body in bodies]


def stored(*given: str) -> list[dict[str, Any]]:
    return created(**{CARD.replace("-", "_"): frozenset(given)})


def test_a_rule_names_one_device_of_one_node_and_says_why() -> None:
    [body] = stored("B", "A")
    assert body["metadata"]["name"] == "gpu-alert-0000-03-00-0-0x56c0.n1"
    assert body["metadata"]["annotations"] == {"gpu.intel.com/alert-reasons": '["A","B"]'}
    assert body["spec"] == {
        "deviceSelector": {"driver": "gpu.intel.com", "pool": "n1", "device": CARD},
        "taint": {"key": "gpu.intel.com/alert", "value": "firing", "effect": "NoSchedule"},
    }


def test_what_is_stored_is_read_back() -> None:
    ours = taint_rules.rules(stored("A", "B"), "n1")
    assert taint_rules.current(ours) == {CARD: {"A", "B"}}
    assert taint_rules.writes(ours, {CARD: frozenset("AB")}, node="n1", effect=Effect.NO_SCHEDULE, owner=None) == []


def test_reasons_that_come_go_and_end() -> None:
    ours = taint_rules.rules(stored("A", "B"), "n1")
    [change] = taint_rules.writes(ours, {CARD: frozenset("B")}, node="n1", effect=Effect.NO_SCHEDULE, owner=None)
    assert isinstance(change, Change)
    assert change.body["metadata"] == {"resourceVersion": "5", "annotations": {"gpu.intel.com/alert-reasons": '["B"]'}}
    [delete] = taint_rules.writes(ours, {}, node="n1", effect=Effect.NO_SCHEDULE, owner=None)
    assert delete == Delete(ours[CARD])


def test_another_effect_is_written_into_what_is_there() -> None:
    ours = taint_rules.rules(stored("A"), "n1")
    [change] = taint_rules.writes(ours, {CARD: frozenset("A")}, node="n1", effect=Effect.NO_EXECUTE, owner=None)
    assert isinstance(change, Change) and change.body["spec"] == {"taint": {"effect": "NoExecute"}}


def test_rules_of_others_are_not_ours() -> None:
    [rule] = stored("A")

    def altered(path: str, value: object) -> dict[str, Any]:
        body = msgspec.json.decode(msgspec.json.encode(rule))
        *steps, last = path.split("/")
        at = body
        for step in steps:
            at = at[step]
        at[last] = value
        return body  # type: ignore[no-any-return]

    foreign = [
        altered("metadata/labels", {}),
        altered("metadata/labels", {"gpu.intel.com/alert": "false"}),
        altered("metadata/name", "by-hand"),
        altered("spec/taint/key", "example.com/x"),
        altered("spec/deviceSelector/driver", "other"),
        altered("spec/deviceSelector/pool", "n2"),
        altered("spec/deviceSelector", None),
    ]
    assert taint_rules.rules(foreign, "n1") == {}


def test_reasons_that_somebody_damaged_are_ended_by_nobody_but_an_administrator() -> None:
    [rule] = stored("A")
    rule["metadata"]["annotations"] = {"gpu.intel.com/alert-reasons": "{"}
    assert taint_rules.current(taint_rules.rules([rule], "n1")) == {CARD: {ILLEGIBLE}}


def test_names_are_names_whatever_the_nodes() -> None:
    nodes = ["n", "a" * 253, "a" * 252 + "b", "x." * 126]
    names = {taint_rules.rule_name(node, CARD) for node in nodes}
    assert len(names) == len(nodes)
    assert all(len(name) <= 253 and re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) for name in names)


def test_devices_are_found_in_slices_of_every_version() -> None:
    pool = Pool(
        node="n1",
        devices=(
            Device(name=CARD, attributes={"pfPciAddress": "0000:03:00.0"}),
            Device(name=VF, attributes={"pfPciAddress": "0000:03:00.0"}),
            Device(name=OTHER),
            Device(name=DeviceName("something-else")),
        ),
    )
    for version, server in (("v1", "v1.37.0"), ("v1beta2", "v1.33.0"), ("v1beta1", "v1.32.0"), ("v1alpha3", "v1.31.0")):
        api = SliceApi.of(version, server)
        bodies = slices.render(pool, api, generation=1, owner=None)
        found = taint_rules.published(bodies, "n1")
        assert found == [Published(CARD, "0000:03:00.0"), Published(VF, "0000:03:00.0"), Published(OTHER, "0000:04:00.0")]
        assert taint_rules.published(bodies, "n2") == []
    assert taint_rules.whole_cards([Published(CARD, "c"), Published(VF, "c")]) == {CARD: (CARD, VF), VF: (CARD, VF)}
    both = [Published(CARD, "0000:03:00.0"), Published(VF, "0000:03:00.0")]
    assert taint_rules.only_cards(both) == {CARD: (CARD,), VF: (CARD,)}
    assert taint_rules.only_cards(both[1:]) == {VF: (VF,)}
