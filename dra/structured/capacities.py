"""What one request takes of a device's capacities: consumable capacity (KEP-5075), as dynamic-resource-allocation/structured rounds it.

Names are compared as they are written: whoever asks for `memory` does not mean `gpu.intel.com/memory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dra.structured import amounts
from dra.structured.release import Release
from dra.structured.shapes import Json

WHOLE = 10**9
"""Billionths of what policies count in: whole units,"""
MILLI = 10**6
"""or, with DRAFractionalCapacityRange, thousandths."""


class Uncountable(Exception):
    """A request finer than a thousandth where thousandths are counted: 1.37 gives up on the pod rather than on the device."""


class Amount(msgspec.Struct, frozen=True):
    """A quantity; as text as the API server writes it."""

    billionths: int
    binary: bool
    """Whether it is written in Ki, Mi, ..."""

    def __str__(self) -> str:
        return amounts.quantity_text(self.billionths, binary=self.binary)


def amount(text: object) -> Amount:
    """
    Raises:
        ValueError: not a quantity.
    """
    return Amount(amounts.quantity(text), str(text).endswith("i"))


def taken(capacity: Mapping[str, Json], asked: Mapping[str, object], release: Release) -> dict[str, Amount] | None:
    """What of each capacity, or None: the device lacks one that is asked for, or its policy forbids the amount.

    A capacity nobody asks for is taken by its policy's default; without a policy, all of it.

    Args:
        capacity: a device's.
        asked: a request's `capacity.requests`.

    Raises:
        Uncountable
    """
    if not asked.keys() <= capacity.keys():
        return None
    found = {}
    for name, offered in capacity.items():
        policy = offered.get("requestPolicy") or {}
        if name not in asked:
            found[name] = amount(policy.get("default") or offered["value"])
            continue
        found[name] = _rounded(amount(asked[name]), policy, release)
        if not _allowed(found[name].billionths, policy, release):
            return None
    return found


def _unit(span: Mapping[str, Any], release: Release) -> int:
    """Billionths of what a `validRange` counts in."""
    fits = all(amounts.quantity(text) % MILLI == 0 for text in span.values())
    return MILLI if release.has("DRAFractionalCapacityRange") and fits else WHOLE


def units(billionths: int, per: int) -> int:
    """Rounded up, as Quantity.Value() rounds."""
    return -(-billionths // per)


def _rounded(wanted: Amount, policy: Json, release: Release) -> Amount:
    """Up to the next amount the policy knows; what lies beyond all of them stays as it is."""
    for text in policy.get("validValues") or ():
        if wanted.billionths <= amounts.quantity(text):
            return amount(text)
    span = policy.get("validRange") or {}
    if "min" not in span:
        return wanted
    least = amount(span["min"])
    if wanted.billionths < least.billionths:
        return least
    if "step" not in span:
        return wanted
    per, step = _unit(span, release), amount(span["step"])
    if per == MILLI and wanted.billionths % MILLI:
        raise Uncountable(f"request {wanted} is not a representable milli value")
    first, each = units(least.billionths, per), units(step.billionths, per)
    steps = units(units(wanted.billionths, per) - first, each)
    # Before 1.37 the result is written in binary, whatever the step is written in.
    return Amount((first + steps * each) * per, step.binary if release.minor >= 37 else True)


def _allowed(billionths: int, policy: Json, release: Release) -> bool:
    if "default" in policy and billionths == amounts.quantity(policy["default"]):
        return True
    span = policy.get("validRange") or {}
    if "max" in span and billionths > amounts.quantity(span["max"]):
        return False
    if "step" in span:
        per = _unit(span, release)
        first, each = units(amounts.quantity(span["min"]), per), units(amounts.quantity(span["step"]), per)
        return (units(billionths, per) - first) % each == 0
    values = policy.get("validValues")
    return not values or billionths in map(amounts.quantity, values)
