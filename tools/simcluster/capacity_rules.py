"""What makes the capacity of a device valid, and the policy by which it is given away in parts (KEP-5075,
pkg/apis/resource/validation of Kubernetes 1.34 to 1.37)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from dra.structured import capacities
from dra.structured.capacities import Amount
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Cause
from tools.simcluster.releases import Release

VALUES: Final = 10
"""Of `validValues`."""


def faults(at: str, capacity: Any, release: Release, *, shared: bool) -> list[Cause]:
    """
    Args:
        at: the field, `spec.devices[0].capacity[memory]`.
        shared: whether the device allows several allocations.
    """
    if not isinstance(capacity, dict):
        return [Cause(at, "Invalid value: must be an object with a value")]
    where, text = f"{at}.value", capacity.get("value")
    try:
        largest = capacities.amount(text)
        policy = capacity.get("requestPolicy")
        if policy is None:
            return []
        where = f"{at}.requestPolicy"
        if not shared:
            return [Cause(where, "Forbidden: allowMultipleAllocations must be true", "FieldValueForbidden")]
        text = policy
        return _policy(where, policy, largest, release)
    except ValueError as error:
        return [Cause(where, f'Invalid value: "{text}": {error}')]


def _policy(at: str, policy: Json, largest: Amount, release: Release) -> list[Cause]:
    values, span = policy.get("validValues"), policy.get("validRange")
    if values and span is not None:
        text = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [Cause(at, f"Forbidden: {text}", "FieldValueForbidden")]
    kind = "validValues" if values else "validRange" if span is not None else ""
    if not kind:
        return []
    if policy.get("default") is None:
        return [Cause(f"{at}.default", f"Required value: required when {kind} is defined", "FieldValueRequired")]
    default = capacities.amount(policy["default"])
    if values:
        return _values(f"{at}.validValues", [capacities.amount(value) for value in values], default, largest, release)
    assert span is not None
    return _range(f"{at}.validRange", span, default, largest, release)


def _values(at: str, values: list[Amount], default: Amount, largest: Amount, release: Release) -> list[Cause]:
    found = [
        _invalid(f"{at}[{index}]", after, "values must be sorted in ascending order")
        for index, (before, after) in enumerate(pairwise(values), start=1)
        if before.billionths > after.billionths
    ]
    if len(values) > VALUES:
        found.append(Cause(at, f"Too many: {len(values)}: must have at most {VALUES} items", "FieldValueTooMany"))
        return [*found, _invalid(at, default, "default value is not valid according to the requestPolicy")]
    per = 1 if release.has("DRAFractionalCapacityRange") else capacities.WHOLE
    known: set[int] = set()
    for index, value in enumerate(values):
        if value.billionths > largest.billionths:
            found.append(_invalid(f"{at}[{index}]", value, f"option is larger than capacity value: {largest}"))
        units = capacities.units(value.billionths, per)
        if units in known:
            found.append(Cause(f"{at}[{index}]", f'Duplicate value: "{value}"', "FieldValueDuplicate"))
        known.add(units)
    if default.billionths not in {value.billionths for value in values}:
        found.append(_invalid(at, default, "default value is not valid according to the requestPolicy"))
    return found


def _range(at: str, span: Json, default: Amount, largest: Amount, release: Release) -> list[Cause]:
    if span.get("min") is None:
        return [Cause(f"{at}.min", "Required value: required when validRange is defined", "FieldValueRequired")]
    bounds = {name: capacities.amount(text) for name, text in span.items() if text is not None}
    least, most = bounds["min"], bounds.get("max")
    found = []
    if least.billionths > largest.billionths:
        found.append(_invalid(f"{at}.min", least, f"min is larger than capacity value: {largest}"))
    if default.billionths < least.billionths:
        where = "default" if release.minor >= 37 else "min"
        found.append(_invalid(f"{at}.{where}", default, f"default is less than min: {least}"))
    if most is not None:
        if least.billionths > most.billionths:
            found.append(_invalid(f"{at}.max", least, f"min is larger than max: {most}"))
        if most.billionths > largest.billionths:
            found.append(_invalid(f"{at}.max", most, f"max is larger than capacity value: {largest}"))
        if default.billionths > most.billionths:
            where = "default" if release.minor >= 37 else "max"
            found.append(_invalid(f"{at}.{where}", default, f"default is more than max: {most}"))
    return found + _steps(at, {"default": default, **bounds}, largest, release)


def _steps(at: str, bounds: dict[str, Amount], largest: Amount, release: Release) -> list[Cause]:
    """Whether the default and the end of the range can be reached from its beginning."""
    per = capacities.WHOLE
    if release.has("DRAFractionalCapacityRange") and any(bound.billionths % capacities.WHOLE for bound in bounds.values()):
        per = capacities.MILLI
        if too_fine := {name: bound for name, bound in bounds.items() if bound.billionths % per}:
            return [_invalid(f"{at}.{name}", bound, "value cannot be represented as a milli value") for name, bound in too_fine.items()]
    if "step" not in bounds:
        return []
    least, step = bounds["min"], bounds["step"]
    # Servers before 1.37 divide by a step of zero and answer 500.
    if step.billionths <= 0:
        return [_invalid(f"{at}.step", step, "must be greater than zero")]
    found = []
    once = Amount(least.billionths + step.billionths, least.binary)
    if once.billionths > largest.billionths:
        found.append(_invalid(f"{at}.step", step, f"one step {once} is larger than capacity value: {largest}"))
    if release.minor >= 37 and per == capacities.WHOLE:
        negative = {name: bound for name, bound in bounds.items() if bound.billionths < 0}
        if negative:
            return found + [_invalid(f"{at}.{name}", bound, "must be greater than or equal to 0") for name, bound in negative.items()]
    first, each = capacities.units(least.billionths, per), capacities.units(step.billionths, per)
    for name in ("default", "max"):
        if name in bounds and (capacities.units(bounds[name].billionths, per) - first) % each:
            text = f"value is not a multiple of a given step ({step}) from ({least})"
            found.append(_invalid(f"{at}.step", bounds[name], text))
    return found


def _invalid(at: str, value: Amount, why: str) -> Cause:
    return Cause(at, f'Invalid value: "{value}": {why}')
