"""The pool of one node: the devices it offers, as a value without versions, generations or slices."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from dra.names import DRIVER_NAME, DeviceName


class Version(msgspec.Struct, frozen=True):
    """An attribute value that is a semantic version."""

    text: str


AttributeValue = bool | int | str | Version


class Effect(enum.StrEnum):
    NO_SCHEDULE = "NoSchedule"
    """Keeps new allocations away unless they tolerate it."""
    NO_EXECUTE = "NoExecute"
    """Evicts running pods as well."""
    NONE = "None"
    """Informs only; Kubernetes 1.35 and newer."""


class Taint(msgspec.Struct, frozen=True, order=True):
    """A reason not to use a device. When it was added is for the server to say (`timeAdded`), so it is no part of the value."""

    key: str
    """A label key in our domain, `gpu.intel.com/wedged`."""
    effect: Effect
    value: str = ""


class SharePolicy(msgspec.Struct, frozen=True):
    """How much of a capacity each claim takes of a device that several claims share (`requestPolicy`, KEP-5075). Quantities, all whole."""

    default: str
    """Of a claim that does not name the capacity."""
    min: str
    max: str
    step: str
    """What a claim asks for is rounded up to `min` and a multiple of this."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    name: DeviceName
    attributes: Mapping[str, AttributeValue] = {}
    """By name, `model` or `resource.kubernetes.io/pciBusID`; without a domain the driver's name is implied."""
    capacity: Mapping[str, str] = {}
    """Quantities by name."""
    taints: tuple[Taint, ...] = ()
    consumes: Mapping[str, Mapping[str, int]] = {}
    """Counter set -> counter -> how much of it the device takes while it is allocated."""
    alone: bool = True
    """Whether it may be offered where the server keeps no counters, that is beside nothing it overlaps with."""
    shares: Mapping[str, SharePolicy] = {}
    """By capacity; any makes it a device that several claims may hold at once. One that `capacity` does not have counts to `max`."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Everything this driver offers on one node."""

    node: str
    """The Node's name; also the pool's, which makes it unique in the cluster."""
    driver: str = DRIVER_NAME
    devices: tuple[Device, ...] = ()
    """In the order the scheduler should prefer: from Kubernetes 1.36 on it takes the first that fits."""
    counters: Mapping[str, Mapping[str, int]] = {}
    """Counter set -> counter -> how much there is. Devices that consume of one set never get more than that together."""

    def without_taints(self) -> Pool:
        """For API servers that drop taints: what must not be used is not offered at all, and what only informs goes unsaid.

        A device with a taint is one that claims hold, or one that nobody is to have (`dra.offer`). The scheduler counts only what it sees,
        so what a withdrawn device consumes is taken off its counter set: a card is not free because one of its VFs in use fell ill.
        """
        if not any(device.taints for device in self.devices):
            return self
        sound: list[Device] = []
        sick: list[Device] = []
        for device in self.devices:
            kept = all(taint.effect is Effect.NONE for taint in device.taints)
            (sound if kept else sick).append(device)
        devices = tuple(msgspec.structs.replace(device, taints=()) for device in sound)
        return msgspec.structs.replace(self.charged(sick), devices=devices)

    def without_counters(self) -> Pool:
        """For API servers that drop counters: only devices that overlap with nothing else."""
        if not self.counters and all(device.alone and not device.consumes for device in self.devices):
            return self
        devices = tuple(msgspec.structs.replace(device, consumes={}) for device in self.devices if device.alone)
        return msgspec.structs.replace(self, devices=devices, counters={})

    def without_shares(self) -> Pool:
        """For API servers that know no consumable capacity: every device for one claim at a time."""
        if not any(device.shares for device in self.devices):
            return self
        return msgspec.structs.replace(self, devices=tuple(msgspec.structs.replace(device, shares={}) for device in self.devices))

    def charged(self, held: Iterable[Device]) -> Pool:
        """With the counter sets less what these devices consume, which are in use and not shown; never below 0."""
        counters = {name: dict(amounts) for name, amounts in self.counters.items()}
        for device in held:
            for name, amounts in device.consumes.items():
                for counter in amounts.keys() & counters.get(name, {}).keys():
                    counters[name][counter] = max(0, counters[name][counter] - amounts[counter])
        return msgspec.structs.replace(self, counters=counters)
