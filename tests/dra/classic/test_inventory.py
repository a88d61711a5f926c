"""GpuAllocationStates are read as the original's and as ours, whoever wrote into them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.classic.inventory import GpuAllocationState

ORIGINALS = {
    "uid": "0000:03:00.0-0x56c0", "memory": 16384, "millicores": 1000, "model": "0x56c0", "type": "gpu", "parentuid": "", "maxvfs": 31,
    "vfindex": 0, "ecc": False,
}  # fmt: skip


def state(**spec: Any) -> GpuAllocationState:
    return msgspec.convert({"metadata": {"name": "n"}, "spec": spec, "status": "Ready"}, GpuAllocationState)


def test_the_originals_device_is_understood_and_takes_no_quotas() -> None:
    [device] = state(allocatableDevices={ORIGINALS["uid"]: ORIGINALS}).devices.values()
    assert (device.name, device.profile, device.tiles, device.quotas, device.bulk_quota) == ("", "", 1, "none", False)


def test_ours_says_more() -> None:
    more = {"name": "Flex 170", "profile": "flex170_m4", "tiles": 2, "quotas": "prelim", "bulkQuota": True, "of a later version": 1}
    [device] = state(allocatableDevices={"x": ORIGINALS | more}).devices.values()
    assert (device.name, device.profile, device.tiles, device.quotas, device.bulk_quota) == ("Flex 170", "flex170_m4", 2, "prelim", True)


@pytest.mark.parametrize("missing", sorted(ORIGINALS))
def test_a_device_without_one_of_the_originals_fields_is_not_guessed(missing: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=missing):
        state(allocatableDevices={"x": {key: value for key, value in ORIGINALS.items() if key != missing}})


@pytest.mark.parametrize(
    ("taint", "tainted"),
    [
        ({"reason": "hot"}, True),
        ({"reasons": {"hot": True}}, True),
        ({"reasons": {"hot": False}}, False),
        ({"reasons": {}}, False),
        ({}, False),
    ],
)
def test_a_taint_counts_while_it_has_a_reason_in_either_form(taint: dict[str, Any], tainted: bool) -> None:
    assert state(taintedDevices={"x": taint}).tainted == ({"x"} if tainted else set())


def test_an_empty_state_has_nothing() -> None:
    empty = msgspec.convert({"metadata": {"name": "n"}}, GpuAllocationState)
    assert (dict(empty.devices), empty.tainted, empty.status) == ({}, frozenset(), "")
