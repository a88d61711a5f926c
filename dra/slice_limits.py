"""What the API server accepts in a device, checked here first.

One bad value gets the whole slice refused, and with it every GPU of the node: so a bad attribute is dropped or cut, and what was dropped
is returned to be counted. Rules: k8s.io/kubernetes pkg/apis/resource/validation, the strictest of 1.31 to 1.37.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from dra import quantities, semver
from dra.pool import AttributeValue, Device, Effect, Taint, Version

STRING_BYTES: Final = 64
NAMED_VALUES: Final = 32
"""Attributes and capacities of one device together."""
TAINTS: Final = 4
"""A device's; 16 from 1.35 on, but four reasons say enough."""
INT_BITS: Final = 63

_GRAVEST_FIRST: Final = (Effect.NO_EXECUTE, Effect.NO_SCHEDULE, Effect.NONE)

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_C_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)


class Dropped(msgspec.Struct, frozen=True):
    """Something that is not published although it was asked for."""

    device: str
    what: str
    """`device`, `attribute`, `capacity` or `taint`."""
    name: str
    why: str


def is_label(text: str) -> bool:
    """DNS-1123 label: what a device name must be."""
    return _LABEL.fullmatch(text) is not None


def check(device: Device) -> tuple[Device | None, tuple[Dropped, ...]]:
    """The device as the server will take it, and what had to go. None if the device itself cannot be named, or if a taint cannot be
    expressed: without it the device would be offered as sound."""
    if not is_label(device.name):
        return None, (Dropped(device.name, "device", device.name, "not a DNS label of at most 63 characters"),)
    if (bad := next((taint for taint in device.taints if (_taint_fault(taint)) is not None), None)) is not None:
        return None, (Dropped(device.name, "taint", bad.key, f"{_taint_fault(bad)}; the device is withdrawn instead"),)
    dropped: list[Dropped] = []
    capacity: dict[str, str] = {}
    for name, quantity in device.capacity.items():
        if (why := _name_fault(name) or _quantity_fault(quantity)) is not None:
            dropped.append(Dropped(device.name, "capacity", name, why))
        else:
            capacity[name] = quantity
    attributes: dict[str, AttributeValue] = {}
    for name, value in device.attributes.items():
        # Capacities decide whether a claim fits at all, so they have the first call on the 32 places.
        why = "more than 32 attributes and capacities" if len(attributes) + len(capacity) >= NAMED_VALUES else _name_fault(name)
        why = why or _value_fault(value)
        if why is not None:
            dropped.append(Dropped(device.name, "attribute", name, why))
        else:
            attributes[name] = cut(value) if isinstance(value, str) else value
    taints = sorted(set(device.taints), key=lambda taint: (_GRAVEST_FIRST.index(taint.effect), taint))
    dropped += [Dropped(device.name, "taint", taint.key, "more than 4 taints") for taint in taints[TAINTS:]]
    return Device(name=device.name, attributes=attributes, capacity=capacity, taints=tuple(sorted(taints[:TAINTS]))), tuple(dropped)


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
