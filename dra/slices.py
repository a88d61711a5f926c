"""ResourceSlices of one node: from GPUs to a pool, from a pool to the JSON of each API version, and back to what it means.

Shapes differ by version: v1 and v1beta2 have flat devices, v1beta1 puts everything but the name under `basic`, v1alpha3 writes a capacity
as a bare quantity and knows no taints. Everything else is the same JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from dra import attributes, quantities, semver, slice_limits
from dra.devices import Gpu
from dra.kube.meta import OwnerReference
from dra.names import DeviceName, NodeName
from dra.pool import AttributeValue, Device, Effect, Pool, Taint, Version
from dra.slice_limits import Dropped

GROUP: Final = "resource.k8s.io"
VERSIONS: Final = ("v1", "v1beta2", "v1beta1", "v1alpha3")
"""Of those with pools, newest first."""
DEVICES: Final = 128
"""Most devices of a slice."""
DEVICES_WITH_TAINTS: Final = 64
"""The same where any of them has a taint (validation of 1.35 and newer)."""

Json = dict[str, Any]


class SliceApi(msgspec.Struct, frozen=True):
    """Which shape the API server wants, and which habits its schedulers have."""

    version: str
    """One of VERSIONS."""
    release: tuple[int, int]
    """Kubernetes release of the server, (1, 34)."""

    @classmethod
    def of(cls, version: str, server_version: str) -> SliceApi:
        """From the version found by discovery and `gitVersion`; an unreadable one counts as the first release with that API."""
        first = {"v1": (1, 34), "v1beta2": (1, 33), "v1beta1": (1, 32), "v1alpha3": (1, 31)}
        return cls(version, semver.release(server_version) or first[version])

    @property
    def group_version(self) -> str:
        return f"{GROUP}/{self.version}"

    @property
    def knows_taints(self) -> bool:
        """Whether it may keep them; the feature gate decides whether it does."""
        return self.version != "v1alpha3" and self.release >= (1, 33)

    @property
    def knows_informing_taints(self) -> bool:
        """Before 1.35 the effect `None` gets the slice refused."""
        return self.knows_taints and self.release >= (1, 35)

    @property
    def counts_twice(self) -> bool:
        """1.31 counts a newer generation's slice twice beside an older one: nothing old may be visible when something new appears."""
        return self.release < (1, 32)

    @property
    def deletes_first(self) -> bool:
        """What Kubernetes' own publisher does from 1.36 on; before, what is obsolete goes last."""
        return self.release >= (1, 36) or self.counts_twice


class Desired(msgspec.Struct, frozen=True):
    pool: Pool
    dropped: tuple[Dropped, ...] = ()


def desired(
    node: NodeName,
    offered: Sequence[Gpu],
    *,
    taints: Mapping[DeviceName, tuple[Taint, ...]] | None = None,
    healthy: Mapping[DeviceName, bool] | None = None,
) -> Desired:
    """The pool for these GPUs, in order of address, each once, every value within the server's limits.

    Args:
        offered: what may be handed out; the caller has left out the rest.
        taints: by device; an unpublishable one withdraws its device.
        healthy: what monitoring says, by device; absent means nothing is known.
    """
    devices: dict[str, Device] = {}
    dropped: list[Dropped] = []
    for gpu in sorted(offered, key=lambda gpu: gpu.bdf):
        raw = Device(
            name=gpu.name,
            attributes=attributes.of(gpu, healthy=(healthy or {}).get(gpu.name)),
            capacity=attributes.capacity_of(gpu),
            taints=(taints or {}).get(gpu.name, ()),
        )
        device, faults = slice_limits.check(raw)
        dropped += faults
        if device is not None and device.name in devices:
            dropped.append(Dropped(device.name, "device", device.name, "the same name twice"))
        elif device is not None:
            devices[device.name] = device
    return Desired(Pool(node=node, devices=tuple(devices.values())), tuple(dropped))


def chunks(pool: Pool) -> list[tuple[Device, ...]]:
    """The devices, a tuple a slice; one empty tuple for no devices, because an empty slice says "none" where no slice says "unknown"."""
    size = DEVICES_WITH_TAINTS if any(device.taints for device in pool.devices) else DEVICES
    return [pool.devices[start : start + size] for start in range(0, len(pool.devices), size)] or [()]


def generate_name(pool: Pool, index: int) -> str:
    """Prefix of the object's name. Schedulers from 1.36 on go through slices by name, so the index comes first."""
    return f"{index:02x}-{pool.driver}-{pool.node}-"


def index_of(pool: Pool, name: str) -> int | None:
    """The index inside an object's name, None if the name was not made here."""
    match = re.match(rf"([0-9a-f]{{2}})-{re.escape(pool.driver)}-", name)
    return int(match[1], 16) if match else None


def render(pool: Pool, api: SliceApi, *, generation: int, owner: OwnerReference | None) -> list[Json]:
    """Every slice of the pool, ready for create. Taints are left to the caller: see `Pool.without_taints`."""
    parts = chunks(pool)
    return [
        {
            "apiVersion": api.group_version,
            "kind": "ResourceSlice",
            "metadata": {"generateName": generate_name(pool, index), **({"ownerReferences": [owner_json(owner)]} if owner else {})},
            "spec": {
                "driver": pool.driver,
                "nodeName": pool.node,
                "pool": {"name": pool.node, "generation": generation, "resourceSliceCount": len(parts)},
                "devices": [_device(device, api) for device in part],
            },
        }
        for index, part in enumerate(parts)
    ]


def owner_json(owner: OwnerReference) -> Json:
    return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": True}


def _device(device: Device, api: SliceApi) -> Json:
    bare = api.version == "v1alpha3"
    body: Json = {"attributes": {name: _value(value) for name, value in device.attributes.items()}}
    body["capacity"] = {name: text if bare else {"value": text} for name, text in device.capacity.items()}
    taints = [taint for taint in device.taints if taint.effect is not Effect.NONE or api.knows_informing_taints]
    if taints:
        assert not bare, "v1alpha3 has no taints"
        body["taints"] = [
            {"key": taint.key, "effect": taint.effect.value, **({"value": taint.value} if taint.value else {})} for taint in taints
        ]
    return {"name": device.name, "basic": body} if bare or api.version == "v1beta1" else {"name": device.name, **body}


def _value(value: AttributeValue) -> Json:
    match value:
        case bool():
            return {"bool": value}
        case int():
            return {"int": value}
        case str():
            return {"string": value}
        case Version(text):
            return {"version": text}


# --- reading what is stored ------------------------------------------------------------------------------------------------------


def devices_of(stored: Json) -> dict[str, Json]:
    """Device name -> its content, `basic` unwrapped."""
    found: dict[str, Json] = {}
    for device in stored.get("spec", {}).get("devices") or []:
        found[device.get("name", "")] = device.get("basic") or {key: value for key, value in device.items() if key != "name"}
    return found


def fingerprint(stored: Json) -> bytes:
    """What a slice says, pool numbers aside: equal for two slices exactly if they mean the same. Quantities count by value, absent and
    empty are one, and `timeAdded`, which the server sets, does not count."""
    spec = {key: value for key, value in stored.get("spec", {}).items() if key not in ("pool", "devices")}
    devices = [{"name": name, **_comparable(content)} for name, content in devices_of(stored).items()]
    return msgspec.json.encode(_pruned({**spec, "devices": devices}), order="sorted")


def _comparable(content: Json) -> Json:
    content = dict(content)
    if capacity := content.get("capacity"):
        content["capacity"] = {name: _normal_capacity(value) for name, value in capacity.items()}
    if taints := content.get("taints"):
        content["taints"] = [{key: value for key, value in taint.items() if key != "timeAdded"} for taint in taints]
    return content


def _normal_capacity(value: Any) -> Any:
    if isinstance(value, str):
        value = {"value": value}
    if isinstance(value, dict) and isinstance(text := value.get("value"), str):
        try:
            return {**value, "value": str(quantities.nanos(text))}
        except ValueError:
            return value
    return value


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
    """`taints`, `attributes.model`, or `device` for the device itself."""


def dropped_fields(sent: Json, stored: Json) -> tuple[DroppedField, ...]:
    """Compare what the server answered with what it was sent. A field that is only normalised is not dropped."""
    lost = [DroppedField("", key) for key in sent["spec"] if key != "devices" and sent["spec"][key] and key not in stored.get("spec", {})]
    kept = devices_of(stored)
    for name, content in devices_of(sent).items():
        if name not in kept:
            lost.append(DroppedField(name, "device"))
            continue
        for field, value in content.items():
            there = kept[name].get(field)
            if isinstance(value, dict):
                lost += [DroppedField(name, f"{field}.{key}") for key in value if key not in (there or {})]
            elif value and (not there or len(there) < len(value)):
                lost.append(DroppedField(name, field))
    return tuple(lost)
