"""Taints in a GpuAllocationState, the original's included."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.alerts import Reasons
from dra.classic import tainting
from dra.classic.inventory import GpuAllocationState
from dra.names import DeviceName

UID, NAME = "0000:03:00.0-0x56c0", DeviceName("0000-03-00-0-0x56c0")


def state(**tainted: Any) -> GpuAllocationState:
    return stored({UID: tainted} if tainted else {})


def stored(tainted: dict[str, Any], devices: dict[str, Any] | None = None) -> GpuAllocationState:
    spec = {"taintedDevices": tainted, "allocatableDevices": devices or {}}
    return msgspec.convert({"metadata": {"name": "n1", "resourceVersion": "7"}, "spec": spec}, GpuAllocationState)


def change(before: GpuAllocationState, *reasons: str) -> Any:
    body = tainting.patch(before, {NAME: frozenset(reasons)} if reasons else {})
    if body is None:
        return None
    assert body["metadata"] == {"resourceVersion": "7"}
    return body["spec"]["taintedDevices"][UID]


def test_reasons_of_every_version_are_read() -> None:
    assert tainting.current(state(reason="A+B")) == {NAME: {"A", "B"}}
    assert tainting.current(state(reasons={"A": True, "B": False})) == {NAME: {"A"}}
    assert tainting.current(state(reason="A", reasons={"B": True})) == {NAME: {"A", "B"}}
    assert tainting.current(stored({UID: {}, "by hand": {"reason": "x"}})) == {}


@pytest.mark.parametrize(
    ("before", "reasons", "expected"),
    [
        ({}, ("A",), {"reasons": {"A": True}}),
        ({"reasons": {"A": True}}, ("A",), None),
        ({"reasons": {"A": True}}, ("A", "B"), {"reasons": {"B": True}}),
        ({"reasons": {"A": True, "B": True}}, ("B",), {"reasons": {"A": None}}),
        ({"reasons": {"A": True}}, (), None),
        ({"reason": "A+B"}, ("B",), {"reason": "B"}),
        ({"reason": "A"}, ("A", "B"), {"reasons": {"B": True}}),
        ({"reason": "A", "reasons": {"B": True}}, ("B",), {"reason": None}),
        ({"reason": "A"}, (), None),
        ({"reasons": {"A": False}}, ("A",), {"reasons": {"A": True}}),
    ],
)
def test_only_what_differs_is_written(before: dict[str, Any], reasons: tuple[str, ...], expected: Any) -> None:
    assert change(state(**before), *reasons) == expected


def test_what_is_nobodys_device_is_left_alone() -> None:
    assert tainting.patch(stored({"by hand": {"reason": "x"}}), {}) is None


def test_an_alert_about_a_vf_is_about_its_card() -> None:
    def device(uid: str, kind: str, parent: str = "") -> dict[str, Any]:
        empty = {"memory": 0, "millicores": 0, "model": "0x56c0", "maxvfs": 0, "vfindex": 0, "ecc": False}
        return {uid: {"uid": uid, "type": kind, "parentuid": parent, **empty}}

    vf, orphan = "0000:03:00.1-0x56c0", "0000:04:00.1-0x56c0"
    found = tainting.cards(stored({}, device(UID, "gpu") | device(vf, "vf", UID) | device(orphan, "vf", "0000:04:00.0-0x56c0")))
    assert found == {
        NAME: (NAME,),
        DeviceName("0000-03-00-1-0x56c0"): (NAME,),
        DeviceName("0000-04-00-1-0x56c0"): (DeviceName("0000-04-00-1-0x56c0"),),
    }


_taints = st.fixed_dictionaries(
    {}, optional={"reason": st.sampled_from(["", "A", "A+B", "C"]), "reasons": st.dictionaries(st.sampled_from("ABC"), st.booleans())}
)


@given(_taints, st.frozensets(st.sampled_from("ABCD")))
def test_after_the_patch_the_reasons_are_those(before: dict[str, Any], wanted: frozenset[str]) -> None:
    reasons: Reasons = {NAME: wanted} if wanted else {}
    body = tainting.patch(state(**before), reasons)
    spec: dict[str, Any] = {"taintedDevices": {UID: dict(before)} if before else {}}
    if body is not None:
        _merge(spec, body["spec"])
    after = stored(spec["taintedDevices"])
    assert tainting.current(after) == reasons
    assert after.tainted == ({UID} if wanted else frozenset())
    assert tainting.patch(after, reasons) is None


def _merge(onto: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            onto.pop(key, None)
        elif isinstance(value, dict):
            _merge(onto.setdefault(key, {}), value)
        else:
            onto[key] = value
