"""Fields that exist only from some minor on, or only while a feature gate is on. What the gate forbids is dropped without a word,
unless the stored object had a field of the feature already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tools.simcluster.kinds import CLAIM, DEVICE_CLASS, SLICE, TEMPLATE, Json, Kind
from tools.simcluster.releases import Release


class Field(msgspec.Struct, frozen=True):
    path: tuple[str, ...]
    """`*` stands for every element of a list or every value of a map."""
    since: int
    gates: tuple[str, ...] = ()
    until: int = 99


_DEVICE: Final = ("spec", "devices", "*")
_PARTITIONS: Final = ("DRAPartitionableDevices",)
_BINDING: Final = ("DRADeviceBindingConditions", "DRAResourceClaimDeviceStatus")
_SHARES: Final = ("DRAConsumableCapacity",)
_LISTS: Final = ("DRAListTypeAttributes",)

_SLICE_FIELDS: Final = (
    Field((*_DEVICE, "taints"), 33, ("DRADeviceTaints",)),
    Field(("spec", "sharedCounters"), 33, _PARTITIONS),
    Field(("spec", "perDeviceNodeSelection"), 33, _PARTITIONS),
    *(Field((*_DEVICE, name), 33, _PARTITIONS) for name in ("consumesCounters", "nodeName", "nodeSelector", "allNodes")),
    Field((*_DEVICE, "consumesCounters", "*", "compatibilityGroups"), 37, ("DRADeviceCompatibilityGroups",)),
    *(Field((*_DEVICE, name), 34, _BINDING) for name in ("bindsToNode", "bindingConditions", "bindingFailureConditions")),
    Field((*_DEVICE, "allowMultipleAllocations"), 34, _SHARES),
    Field((*_DEVICE, "capacity", "*", "requestPolicy"), 34, _SHARES),
    *(Field((*_DEVICE, "attributes", "*", name), 36, _LISTS) for name in ("ints", "bools", "strings", "versions")),
    Field((*_DEVICE, "nodeAllocatableResourceMappings"), 36, ("DRANodeAllocatableResources",), until=36),
    Field((*_DEVICE, "nodeAllocatableResources"), 37, ("DRANodeAllocatableResources",)),
    Field(("spec", "skipNodeOperations"), 37, ("DRAOptionalNodeOperations",)),
    Field(("spec", "partitionTypeAttribute"), 37, ("DRAPartitionableDevicesType",)),
)
_REQUEST: Final = ("devices", "requests", "*")


def _spec_fields(root: tuple[str, ...]) -> tuple[Field, ...]:
    exact = (*root, *_REQUEST, "exactly")
    alternative = (*root, *_REQUEST, "firstAvailable", "*")
    return (
        Field((*exact, "adminAccess"), 31, ("DRAAdminAccess",)),
        Field((*root, *_REQUEST, "firstAvailable"), 33, ("DRAPrioritizedList",)),
        *(Field((*at, "tolerations"), 33, ("DRADeviceTaints",)) for at in (exact, alternative)),
        *(Field((*at, "capacity"), 34, _SHARES) for at in (exact, alternative)),
        Field((*root, "devices", "constraints", "*", "distinctAttribute"), 34, _SHARES),
        Field((*exact, "derivedAttributes"), 37, ("DRADerivedAttributes",)),
    )


_RESULT: Final = ("status", "allocation", "devices", "results", "*")
_CLAIM_FIELDS: Final = (
    *_spec_fields(("spec",)),
    Field(("status", "devices"), 32, ("DRAResourceClaimDeviceStatus",)),
    # 1.31's results have no such field: there the request tells.
    Field((*_RESULT, "adminAccess"), 32, ("DRAAdminAccess",)),
    Field((*_RESULT, "tolerations"), 33, ("DRADeviceTaints",)),
    *(Field((*_RESULT, name), 34, _BINDING) for name in ("bindingConditions", "bindingFailureConditions")),
    *(Field((*_RESULT, name), 34, _SHARES) for name in ("shareID", "consumedCapacity")),
    Field(("status", "devices", "*", "shareID"), 34, _SHARES),
    Field((*_RESULT, "skipNodeOperations"), 37, ("DRAOptionalNodeOperations",)),
    Field(("status", "allocation", "allocationTimestamp"), 34, _BINDING),
)
_FIELDS: Final[dict[Kind, tuple[Field, ...]]] = {
    SLICE: _SLICE_FIELDS,
    CLAIM: _CLAIM_FIELDS,
    TEMPLATE: _spec_fields(("spec", "spec")),
    DEVICE_CLASS: (Field(("spec", "extendedResourceName"), 34, ("DRAExtendedResource",)),),
}

# What a slice and its devices have in every release; the rest is in the table, and anything else is no field at all.
_SLICE_ALWAYS: Final = {"driver", "pool", "nodeName", "nodeSelector", "allNodes", "devices"}
_DEVICE_ALWAYS: Final = {"name", "attributes", "capacity"}


def drop(kind: Kind, body: Json, before: Json | None, release: Release) -> Json:
    """The object without what this release and its gates do not know. Never changes `body`."""
    for field in _FIELDS.get(kind, ()):
        exists = field.since <= release.minor <= field.until
        if exists and all(release.has(gate) for gate in field.gates):
            continue
        if exists and before is not None and _in_use(kind, before, field.gates):
            continue
        body = _without(body, field.path)
    return _known(body) if kind is SLICE else body


def _in_use(kind: Kind, before: Json, gates: tuple[str, ...]) -> bool:
    """Whether the stored object has any field of the feature: then all of them may stay and come."""
    return any(True for field in _FIELDS[kind] if field.gates == gates for _ in _find(before, field.path))


def _known(body: Json) -> Json:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return body
    names = {field.path[1] for field in _SLICE_FIELDS if len(field.path) == 2} | _SLICE_ALWAYS
    device_names = {field.path[3] for field in _SLICE_FIELDS if field.path[:3] == _DEVICE} | _DEVICE_ALWAYS
    kept = {name: value for name, value in spec.items() if name in names}
    if isinstance(kept.get("devices"), list):
        kept["devices"] = [
            {name: value for name, value in device.items() if name in device_names} if isinstance(device, dict) else device
            for device in kept["devices"]
        ]
    return {**body, "spec": kept}


def _find(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        if value not in (None, [], {}):
            yield value
        return
    for _, inner in _children(value, path[0]):
        yield from _find(inner, path[1:])


def _children(value: Any, step: str) -> list[tuple[Any, Any]]:
    if step == "*":
        if isinstance(value, dict):
            return list(value.items())
        return list(enumerate(value)) if isinstance(value, list) else []
    return [(step, value[step])] if isinstance(value, dict) and step in value else []


def _without(value: Any, path: tuple[str, ...]) -> Any:
    if len(path) == 1:
        return {key: inner for key, inner in value.items() if key != path[0]} if isinstance(value, dict) and path[0] in value else value
    changed = {key: new for key, inner in _children(value, path[0]) if (new := _without(inner, path[1:])) is not inner}
    if not changed:
        return value
    if isinstance(value, list):
        return [changed.get(index, inner) for index, inner in enumerate(value)]
    return {**value, **changed}
