"""What the API server accepts in a device, checked here first.

One bad value gets the whole slice refused, and with it every GPU of the node: so a bad attribute is dropped or cut, and what was dropped
is returned to be counted. Rules: k8s.io/kubernetes pkg/apis/resource/validation, the strictest of 1.31 to 1.37.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from dra import quantities, semver
from dra.pool import AttributeValue, Device, Effect, SharePolicy, Taint, Version

STRING_BYTES: Final = 64
NAMED_VALUES: Final = 32
"""Attributes and capacities of one device together."""
TAINTS: Final = 4
"""A device's; 16 from 1.35 on, but four reasons say enough."""
INT_BITS: Final = 63
CONSUMERS: Final = 64
"""Devices that consume of one counter set: before 1.35 they need one slice, and newer servers take 64 in one. A card and 63 VFs."""
COUNTERS: Final = 16
"""Of one counter set: with 64 devices that consume them all, the 1024 that a slice of 1.33 and 1.34 may consume."""

_GRAVEST_FIRST: Final = (Effect.NO_EXECUTE, Effect.NO_SCHEDULE, Effect.NONE)

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_C_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)


class Dropped(msgspec.Struct, frozen=True):
    """Something that is not published although it was asked for."""

    device: str
    what: str
    """`device`, `attribute`, `capacity`, `taint`, `share` or, with its own name for the device's, `counter set`."""
    name: str
    why: str


def is_label(text: str) -> bool:
    """DNS-1123 label: what a device name must be."""
    return _LABEL.fullmatch(text) is not None


def check_counters(counters: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, Mapping[str, int]], tuple[Dropped, ...]]:
    """The counter sets that the server will take, by name, and those that had to go."""
    good: dict[str, Mapping[str, int]] = {}
    dropped: list[Dropped] = []
    for name, amounts in sorted(counters.items()):
        why = None if is_label(name) else "not a DNS label of at most 63 characters"
        why = why or (f"{len(amounts)} counters, 1 to {COUNTERS} are possible" if not 1 <= len(amounts) <= COUNTERS else None)
        why = why or next((fault for counter, amount in amounts.items() if (fault := _counter_fault(counter, amount)) is not None), None)
        if why is None:
            good[name] = dict(sorted(amounts.items()))
        else:
            dropped.append(Dropped(name, "counter set", name, why))
    return good, tuple(dropped)


def check(device: Device, counters: Mapping[str, Mapping[str, int]] | None = None) -> tuple[Device | None, tuple[Dropped, ...]]:
    """The device as the server will take it, and what had to go. None if the device itself cannot be named, or if a taint or what it
    consumes cannot be expressed: without them it would be offered as sound, or as free while others hold parts of it.

    Args:
        counters: the counter sets there are, checked.
    """
    if not is_label(device.name):
        return None, (Dropped(device.name, "device", device.name, "not a DNS label of at most 63 characters"),)
    if (bad := next((taint for taint in device.taints if (_taint_fault(taint)) is not None), None)) is not None:
        return None, (Dropped(device.name, "taint", bad.key, f"{_taint_fault(bad)}; the device is withdrawn instead"),)
    if (why := _consumption_fault(device.consumes, counters or {})) is not None:
        return None, (Dropped(device.name, "device", device.name, why),)
    dropped: list[Dropped] = []
    capacity: dict[str, str] = {}
    for name, quantity in device.capacity.items():
        if (why := _name_fault(name) or _quantity_fault(quantity)) is not None:
            dropped.append(Dropped(device.name, "capacity", name, why))
        else:
            capacity[name] = quantity
    shares = dict(sorted(device.shares.items()))
    for name, policy in device.shares.items():
        why = "a device that consumes counters is for one claim at a time" if device.consumes else None
        if (why := why or _name_fault(name) or _policy_fault(policy, capacity.get(name, policy.max))) is not None:
            dropped.append(Dropped(device.name, "share", name, f"{why}; the device is for one claim at a time"))
            shares = {}
    attributes: dict[str, AttributeValue] = {}
    for name, value in device.attributes.items():
        # Capacities decide whether a claim fits at all, so they have the first call on the 32 places.
        full = len(attributes) + len(capacity.keys() | shares.keys()) >= NAMED_VALUES
        why = "more than 32 attributes and capacities" if full else _name_fault(name)
        why = why or _value_fault(value)
        if why is not None:
            dropped.append(Dropped(device.name, "attribute", name, why))
        else:
            attributes[name] = cut(value) if isinstance(value, str) else value
    taints = sorted(set(device.taints), key=lambda taint: (_GRAVEST_FIRST.index(taint.effect), taint))
    dropped += [Dropped(device.name, "taint", taint.key, "more than 4 taints") for taint in taints[TAINTS:]]
    kept = tuple(sorted(taints[:TAINTS]))
    return msgspec.structs.replace(device, attributes=attributes, capacity=capacity, taints=kept, shares=shares), tuple(dropped)


def cut(text: str) -> str:
    """At most 64 bytes of UTF-8, cut between characters."""
    return text.encode(errors="replace")[:STRING_BYTES].decode(errors="ignore")


def _name_fault(name: str) -> str | None:
    domain, slash, identifier = name.rpartition("/")
    if slash and not (len(domain) <= 63 and _DOMAIN.fullmatch(domain)):
        return "its domain is not a DNS subdomain of at most 63 characters"
    return None if _C_IDENTIFIER.fullmatch(identifier) else "not a C identifier of at most 32 characters"


def _value_fault(value: AttributeValue) -> str | None:
    if isinstance(value, Version) and not semver.valid(value.text):
        return f"not a semantic version of at most 64 characters: {value.text[:80]!r}"
    if isinstance(value, int) and not -(1 << INT_BITS) <= value < 1 << INT_BITS:
        return "does not fit into 64 bits"
    return None


def _quantity_fault(quantity: str) -> str | None:
    try:
        quantities.nanos(quantity)
    except ValueError as error:
        return str(error)
    return None


def _taint_fault(taint: Taint) -> str | None:
    domain, slash, name = taint.key.rpartition("/")
    if slash and not (len(domain) <= 253 and _DOMAIN.fullmatch(domain)):
        return "the domain of its key is not a DNS subdomain"
    if not _LABEL_NAME.fullmatch(name):
        return "its key is not a label key"
    return None if not taint.value or _LABEL_NAME.fullmatch(taint.value) else "its value is not a label value"


def _counter_fault(name: str, amount: int) -> str | None:
    if not is_label(name):
        return f"the name of its counter {name[:80]!r} is not a DNS label of at most 63 characters"
    return None if 0 <= amount < 1 << INT_BITS else f"its counter {name} is {amount}"


def _consumption_fault(consumes: Mapping[str, Mapping[str, int]], counters: Mapping[str, Mapping[str, int]]) -> str | None:
    """One set at most: a card and its VFs share one, and before 1.35 all devices of a set are in one slice with it."""
    if len(consumes) > 1:
        return f"it consumes of {len(consumes)} counter sets, 1 is possible"
    for name, amounts in consumes.items():
        if name not in counters:
            return f"it consumes of counter set {name}, which is not published"
        if not amounts:
            return f"it consumes nothing of counter set {name}"
        for counter, amount in amounts.items():
            if counter not in counters[name]:
                return f"it consumes of {counter}, which counter set {name} does not have"
            if (why := _counter_fault(counter, amount)) is not None:
                return why
    return None


def _policy_fault(policy: SharePolicy, value: str) -> str | None:
    """Rules of validateRequestPolicyRange; fractions are for 1.37 only."""
    try:
        default, least, most, step, there = (
            quantities.nanos(text) for text in (policy.default, policy.min, policy.max, policy.step, value)
        )
    except ValueError as error:
        return str(error)
    if any(amount % quantities.NANO or amount >= quantities.NANO << INT_BITS for amount in (default, least, most, step)):
        return "its amounts are not whole numbers of at most 63 bits"
    if not (0 <= least <= default <= most <= there and step > 0 and least + step <= there):
        return f"default {policy.default}, min {policy.min}, max {policy.max} and step {policy.step} do not fit into {value}"
    if (default - least) % step or (most - least) % step:
        return f"default {policy.default} or max {policy.max} is no multiple of {policy.step} from {policy.min}"
    return None
