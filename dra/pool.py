"""The pool of one node: the devices it offers, as a value without versions, generations or slices."""

from __future__ import annotations

import enum
from collections.abc import Mapping

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


class Device(msgspec.Struct, frozen=True, kw_only=True):
    name: DeviceName
    attributes: Mapping[str, AttributeValue] = {}
    """By name, `model` or `resource.kubernetes.io/pciBusID`; without a domain the driver's name is implied."""
    capacity: Mapping[str, str] = {}
    """Quantities by name."""
    taints: tuple[Taint, ...] = ()


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Everything this driver offers on one node."""

    node: str
    """The Node's name; also the pool's, which makes it unique in the cluster."""
    driver: str = DRIVER_NAME
    devices: tuple[Device, ...] = ()
    """In the order the scheduler should prefer: from Kubernetes 1.36 on it takes the first that fits."""

    def without_taints(self) -> Pool:
        """For API servers that drop taints: what must not be used is not offered at all, and what only informs goes unsaid."""
        if not any(device.taints for device in self.devices):
            return self
        sound = (device for device in self.devices if all(taint.effect is Effect.NONE for taint in device.taints))
        return msgspec.structs.replace(self, devices=tuple(msgspec.structs.replace(device, taints=()) for device in sound))
