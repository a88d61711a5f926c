"""Reasons of tainted devices in a GpuAllocationState: what they are, and the merge patch that makes them what they should be.

v0.3.0 of the original driver wrote one `reason` a device, the names of its alerts joined by `+`; v0.4.0 and we a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dra.alerts import Reasons
from dra.classic.inventory import DeviceType, GpuAllocationState, TaintedGpu
from dra.classic.names import device_of, device_uid
from dra.names import DeviceName, bdf_of_device_name


def current(state: GpuAllocationState) -> Reasons:
    """By the names that devices have with structured DRA."""
    return {device: frozenset(_reasons(taint)) for device, taint in _tainted(state).items() if _reasons(taint)}


def cards(state: GpuAllocationState) -> Mapping[DeviceName, tuple[DeviceName, ...]]:
    """Each device of the node -> the one that an alert about it taints: its card."""
    found = {}
    for uid, device in state.devices.items():
        card = device.parentuid if device.type is DeviceType.VF and device.parentuid in state.devices else uid
        found[device_of(uid)] = (device_of(card),)
    return found


def patch(state: GpuAllocationState, wanted: Reasons) -> dict[str, Any] | None:
    """What to merge into the object so that `wanted` is all there is; None if nothing differs. It names the version that was read, so that
    nothing is lost that somebody else has written since."""
    change: dict[str, Any] = {}
    tainted = _tainted(state)
    for device in sorted({*tainted, *wanted}):
        was, new = tainted.get(device), wanted.get(device, frozenset())
        if not new:
            # An entry without reasons goes too, whoever left it.
            change[_uid(device)] = None
        elif was is None or _reasons(was) != new:
            change[_uid(device)] = _entry(was or TaintedGpu(), new)
    if not change:
        return None
    return {"metadata": {"resourceVersion": state.metadata.resource_version}, "spec": {"taintedDevices": change}}


def _entry(was: TaintedGpu, new: frozenset[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    joined = [reason for reason in was.reason.split("+") if reason]
    left = [reason for reason in joined if reason in new]
    if left != joined:
        entry["reason"] = "+".join(left) or None
    mapped = was.reasons or {}
    added = {reason: True for reason in new if reason not in left and not mapped.get(reason)}
    removed: dict[str, bool | None] = {reason: None for reason in mapped if reason not in new}
    if added or removed:
        entry["reasons"] = dict(sorted((added | removed).items()))
    return entry


def _reasons(taint: TaintedGpu) -> set[str]:
    return {reason for reason in taint.reason.split("+") if reason} | {reason for reason, on in (taint.reasons or {}).items() if on}


def _tainted(state: GpuAllocationState) -> dict[DeviceName, TaintedGpu]:
    return dict(_named((state.spec.tainted_devices or {}).items()))


def _named(items: Iterable[tuple[str, TaintedGpu]]) -> Iterator[tuple[DeviceName, TaintedGpu]]:
    for uid, taint in items:
        try:
            yield device_of(uid), taint
        except ValueError:
            continue  # nobody's device: none of our business either


def _uid(device: DeviceName) -> str:
    bdf = bdf_of_device_name(device)
    assert bdf is not None, device
    return device_uid(bdf, device.rpartition("-")[2])
