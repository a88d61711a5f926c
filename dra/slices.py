"""ResourceSlices of one node: from GPUs to a pool, from a pool to the JSON of each API version.

Shapes differ by version: v1 and v1beta2 have flat devices, v1beta1 puts everything but the name under `basic`, v1alpha3 writes a capacity
as a bare quantity and knows no taints, counters and shares. Everything else is the same JSON.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from dra import attributes, semver, slice_layout, slice_limits
from dra.devices import Gpu
from dra.kube.meta import OwnerReference
from dra.names import DeviceName, NodeName
from dra.pool import AttributeValue, Device, Effect, Pool, SharePolicy, Taint, Version
from dra.slice_contents import Json
from dra.slice_layout import Part
from dra.slice_limits import Dropped
from dra.terms import Terms

GROUP: Final = "resource.k8s.io"
VERSIONS: Final = ("v1", "v1beta2", "v1beta1", "v1alpha3")
"""Of those with pools, newest first."""


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
    def knows_counters(self) -> bool:
        """Whether it may keep counter sets and what devices consume of them (KEP-4815); the feature gate decides whether it does."""
        return self.version != "v1alpha3" and self.release >= (1, 33)

    @property
    def splits_counters(self) -> bool:
        """From 1.35 on a slice has counter sets or devices, before, a device's counter set is in its own slice."""
        return self.release >= (1, 35)

    @property
    def knows_shares(self) -> bool:
        """Whether it may keep that several claims share a device (KEP-5075); the feature gate decides whether it does."""
        return self.version != "v1alpha3" and self.release >= (1, 34)

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
    terms: Mapping[DeviceName, Terms] | None = None,
    counters: Mapping[str, Mapping[str, int]] | None = None,
) -> Desired:
    """The pool for these GPUs, in order of address, each once, every value within the server's limits.

    Args:
        offered: what may be handed out; the caller has left out the rest.
        taints: by device; an unpublishable one withdraws its device.
        healthy: what monitoring says, by device; absent means nothing is known.
        terms: by device; absent means whole, alone, for one claim at a time.
        counters: counter set -> counter -> how much there is, for devices whose terms consume of them.
    """
    devices: dict[str, Device] = {}
    sets, faults = slice_limits.check_counters(counters or {})
    dropped: list[Dropped] = list(faults)
    consumers: Counter[str] = Counter()
    held: list[Device] = []
    for gpu in sorted(offered, key=lambda gpu: gpu.bdf):
        own = (terms or {}).get(gpu.name) or Terms()
        raw = Device(
            name=gpu.name,
            attributes=attributes.of(gpu, healthy=(healthy or {}).get(gpu.name), profile=own.profile),
            capacity=attributes.capacity_of(gpu, memory_bytes=own.memory_bytes, millicores=own.millicores),
            taints=(taints or {}).get(gpu.name, ()),
            consumes=own.consumes,
            alone=own.alone,
            shares=own.shares,
        )
        device, faults = slice_limits.check(raw, sets)
        dropped += faults
        if device is None:
            held += [raw] if raw.taints else []
        elif device.name in devices:
            dropped.append(Dropped(device.name, "device", device.name, "the same name twice"))
        elif any(consumers[name] >= slice_limits.CONSUMERS for name in device.consumes):
            dropped.append(Dropped(device.name, "device", device.name, "more than 64 devices consume of its counter set"))
        else:
            devices[device.name] = device
            consumers.update(device.consumes.keys())
    return Desired(Pool(node=node, devices=tuple(devices.values()), counters=sets).charged(held), tuple(dropped))


def generate_name(pool: Pool, index: int) -> str:
    """Prefix of the object's name. Schedulers from 1.36 on go through slices by name, so the index comes first."""
    return f"{index:02x}-{pool.driver}-{pool.node}-"


def index_of(pool: Pool, name: str) -> int | None:
    """The index inside an object's name, None if the name was not made here."""
    match = re.match(rf"([0-9a-f]{{2}})-{re.escape(pool.driver)}-", name)
    return int(match[1], 16) if match else None


def render(pool: Pool, api: SliceApi, *, generation: int, owner: OwnerReference | None) -> list[Json]:
    """Every slice of the pool, ready for create. What this server does not know is left to the caller: see `Pool.without_taints`,
    `without_counters` and `without_shares`."""
    parts = slice_layout.parts(pool, split=api.splits_counters)
    return [
        {
            "apiVersion": api.group_version,
            "kind": "ResourceSlice",
            "metadata": {"generateName": generate_name(pool, index), **({"ownerReferences": [owner_json(owner)]} if owner else {})},
            "spec": {
                "driver": pool.driver,
                "nodeName": pool.node,
                "pool": {"name": pool.node, "generation": generation, "resourceSliceCount": len(parts)},
                **_content(part, api),
            },
        }
        for index, part in enumerate(parts)
    ]


def owner_json(owner: OwnerReference) -> Json:
    return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": True}


def _content(part: Part, api: SliceApi) -> Json:
    """Without the key `devices`, even an empty list, beside counter sets that have a slice of their own: both are refused (1.35)."""
    content: Json = {}
    if part.counters:
        assert api.knows_counters, f"{api.version} of {api.release} has no counters"
        content["sharedCounters"] = [{"name": name, "counters": _counters(amounts)} for name, amounts in part.counters.items()]
    if part.devices or not part.counters:
        content["devices"] = [_device(device, api) for device in part.devices]
    return content


def _counters(amounts: Mapping[str, int]) -> Json:
    return {name: {"value": str(amount)} for name, amount in sorted(amounts.items())}


def _device(device: Device, api: SliceApi) -> Json:
    bare = api.version == "v1alpha3"
    body: Json = {"attributes": {name: typed(value) for name, value in device.attributes.items()}}
    body["capacity"] = dict(device.capacity) if bare else _capacity(device)
    taints = [taint for taint in device.taints if taint.effect is not Effect.NONE or api.knows_informing_taints]
    if taints:
        assert not bare, "v1alpha3 has no taints"
        body["taints"] = [
            {"key": taint.key, "effect": taint.effect.value, **({"value": taint.value} if taint.value else {})} for taint in taints
        ]
    if device.consumes:
        assert api.knows_counters, f"{api.version} of {api.release} has no counters"
        body["consumesCounters"] = [{"counterSet": name, "counters": _counters(amounts)} for name, amounts in device.consumes.items()]
    if device.shares:
        assert api.knows_shares, f"{api.version} of {api.release} has no devices for several claims"
        body["allowMultipleAllocations"] = True
    return {"name": device.name, "basic": body} if bare or api.version == "v1beta1" else {"name": device.name, **body}


def _capacity(device: Device) -> Json:
    if not device.shares:
        return {name: {"value": text} for name, text in device.capacity.items()}
    amounts = {**{name: policy.max for name, policy in device.shares.items()}, **device.capacity}
    return {name: {"value": text, "requestPolicy": _policy(device.shares.get(name))} for name, text in sorted(amounts.items())}


def _policy(policy: SharePolicy | None) -> Json:
    """What has no policy of its own is nothing that claims take unless they say so: without any the first would take all of it."""
    if policy is None:
        return {"default": "0"}
    return {"default": policy.default, "validRange": {"min": policy.min, "max": policy.max, "step": policy.step}}


def typed(value: AttributeValue) -> Json:
    """An attribute's value under the name of its type."""
    match value:
        case bool():
            return {"bool": value}
        case int():
            return {"int": value}
        case str():
            return {"string": value}
        case Version(text):
            return {"version": text}
