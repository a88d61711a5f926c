"""`gpu-controller taint`: taints that people set and clear by hand, as the original's alert-webhook did from its command line."""

from __future__ import annotations

from collections.abc import Mapping

from dra.alerts import NAME_LENGTH, Reasons
from dra.classic.names import device_of
from dra.errors import ClaimRefused
from dra.names import DeviceName, bdf_of_device_name
from nursery_apps.controller.tainter import Devices, Tainter


class TaintRefused(ClaimRefused):
    """The caller's move: nothing was changed."""

    reason = "TaintRefused"


async def taint(tainter: Tainter, node: str, *, reason: str | None = None, clear: bool = False, device: str | None = None) -> list[str]:
    """Set a reason on all cards of a node, clear all reasons, or only say what there is; returns lines for people.

    Args:
        reason: what devices are to be tainted for; like an alert of that name, which ends it when it is resolved.
        clear: take all reasons away, whoever gave them.
        device: only this one and its card, by uid (`0000:03:00.0-0x56c0`) or name (`0000-03-00-0-0x56c0`).

    Raises:
        TaintRefused: it cannot be done as it was asked.
        ApiError: the API server did not let us.
    """
    if reason is not None and clear:
        raise TaintRefused("a reason to set, and clear: give one of them")
    if reason is not None and not (reason and reason.isprintable() and len(reason) <= NAME_LENGTH):
        raise TaintRefused(f"a reason is printable and has at most {NAME_LENGTH} characters")
    chosen = _name(device) if device is not None else None

    def decide(now: Reasons, devices: Devices) -> Reasons:
        known = {*devices, *now}
        if chosen is not None and chosen not in known:
            raise TaintRefused(f"node {node} has no device {device}; it has: {', '.join(sorted(known)) or 'none'}")
        if not known and (reason is not None or clear):
            raise TaintRefused(f"node {node} has no devices of this driver")
        if clear:
            gone = known if chosen is None else {chosen, *devices.get(chosen, ())}
            return {name: reasons for name, reasons in now.items() if name not in gone}
        if reason is not None:
            targets = {target for name in ([chosen] if chosen is not None else devices) for target in devices.get(name, ())}
            return {name: now.get(name, frozenset()) | ({reason} if name in targets else frozenset()) for name in {*now, *targets}}
        return now

    return _lines(node, await tainter.change(node, decide))


def _lines(node: str, reasons: Reasons) -> list[str]:
    found: Mapping[DeviceName, str] = {name: ", ".join(sorted(why)) for name, why in sorted(reasons.items())}
    return [f"{node} {name}: {why}" for name, why in found.items()] or [f"{node}: no device is tainted"]


def _name(device: str) -> DeviceName:
    if bdf_of_device_name(device) is not None:
        return DeviceName(device)
    try:
        return device_of(device)
    except ValueError as error:
        raise TaintRefused(f"{error}; a device is written 0000:03:00.0-0x56c0 or 0000-03-00-0-0x56c0") from None
