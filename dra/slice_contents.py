"""What a slice says, as JSON of any version: what is in it, whether two mean the same, and what of one that was sent is not stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dra import quantities

Json = dict[str, Any]


def devices_of(stored: Json) -> dict[str, Json]:
    """Device name -> its content, `basic` unwrapped."""
    found: dict[str, Json] = {}
    for device in stored.get("spec", {}).get("devices") or []:
        found[device.get("name", "")] = device.get("basic") or {key: value for key, value in device.items() if key != "name"}
    return found


def counter_sets_of(stored: Json) -> frozenset[str]:
    """Names of the counter sets in a slice."""
    return frozenset(entry.get("name", "") for entry in stored.get("spec", {}).get("sharedCounters") or [])


def fingerprint(stored: Json) -> bytes:
    """What a slice says, pool numbers aside: equal for two slices exactly if they mean the same. Quantities count by value, absent and
    empty are one, and `timeAdded`, which the server sets, does not count."""
    spec = {key: value for key, value in stored.get("spec", {}).items() if key not in ("pool", "devices")}
    if counters := spec.get("sharedCounters"):
        spec["sharedCounters"] = [{**entry, "counters": _by_value(entry.get("counters"))} for entry in counters]
    devices = [{"name": name, **_comparable(content)} for name, content in devices_of(stored).items()]
    return msgspec.json.encode(_pruned({**spec, "devices": devices}), order="sorted")


def _comparable(content: Json) -> Json:
    content = dict(content)
    if capacity := content.get("capacity"):
        content["capacity"] = {name: _by_value({"value": of} if isinstance(of, str) else of) for name, of in capacity.items()}
    if consumed := content.get("consumesCounters"):
        content["consumesCounters"] = [{**entry, "counters": _by_value(entry.get("counters"))} for entry in consumed]
    if taints := content.get("taints"):
        content["taints"] = [{key: value for key, value in taint.items() if key != "timeAdded"} for taint in taints]
    return content


def _by_value(part: Any) -> Any:
    """A part of a slice in which every text is a quantity, with what they amount to in their place."""
    if isinstance(part, dict):
        return {key: _by_value(inner) for key, inner in part.items()}
    if isinstance(part, list):
        return [_by_value(inner) for inner in part]
    try:
        return str(quantities.nanos(part)) if isinstance(part, str) else part
    except ValueError:
        return part


def _pruned(value: Any) -> Any:
    """Without what means nothing: null, empty lists and empty objects, at any depth."""
    if isinstance(value, dict):
        pruned = {key: _pruned(part) for key, part in value.items()}
        return {key: part for key, part in pruned.items() if part is not None and part not in ({}, [])}
    if isinstance(value, list):
        return [_pruned(part) for part in value]
    return value


class DroppedField(msgspec.Struct, frozen=True):
    """Something that was sent and not stored: a feature gate is off, or the server is older than the field."""

    device: str
    """Empty for a field of the slice itself."""
    field: str
    """`taints`, `attributes.model`, `capacity.memory.requestPolicy`, or `device` for the device itself."""


def dropped_fields(sent: Json, stored: Json) -> tuple[DroppedField, ...]:
    """Compare what the server answered with what it was sent. A field that is only normalised is not dropped."""
    spec, there = sent["spec"], stored.get("spec", {})
    lost = [DroppedField("", key) for key in spec if key != "devices" and _lost(spec[key], there.get(key))]
    kept = devices_of(stored)
    for name, content in devices_of(sent).items():
        if name not in kept:
            lost.append(DroppedField(name, "device"))
        else:
            lost += [DroppedField(name, field) for field in _dropped(content, kept[name])]
    return tuple(lost)


def _dropped(content: Json, kept: Json) -> Iterator[str]:
    for field, value in content.items():
        there = kept.get(field)
        if not isinstance(value, dict):
            if _lost(value, there):
                yield field
            continue
        for key, inner in value.items():
            if key not in (there or {}):
                yield f"{field}.{key}"
            elif isinstance(inner, dict) and inner.get("requestPolicy") and not kept[field][key].get("requestPolicy"):
                yield f"{field}.{key}.requestPolicy"


def _lost(value: Any, there: Any) -> bool:
    return bool(value) and (not there or (isinstance(value, list) and len(there) < len(value)))
