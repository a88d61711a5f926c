"""Nodes and demands of tests, in a few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dra.classic.handle import VERSION, Handle, Part
from dra.classic.inventory import READY, AllocatableGpu, DeviceType, GpuAllocationState, StateSpec, TaintedGpu
from dra.classic.parameters import ClaimParameters, ClassParameters, Demand, DeviceSelector
from dra.kube.meta import ObjectMeta

FLEX = "0x56c0"


def uid(number: int, function: int = 0, model: str = FLEX) -> str:
    return f"0000:{number:02x}:00.{function}-{model}"


def card(number: int, *, memory: int = 16384, maxvfs: int = 31, model: str = FLEX, **more: Any) -> AllocatableGpu:
    fields: dict[str, Any] = {
        "millicores": 1000,
        "parentuid": "",
        "vfindex": 0,
        "ecc": False,
        "quotas": "prelim",
        "name": "Flex 170",
        **more,
    }
    return AllocatableGpu(uid=uid(number, model=model), memory=memory, maxvfs=maxvfs, model=model, type=DeviceType.GPU, **fields)


def vf(number: int, index: int, *, memory: int = 2000, millicores: int = 125, **more: Any) -> AllocatableGpu:
    """VF `index`, from 0, of a card."""
    fields: dict[str, Any] = {"parentuid": uid(number), "maxvfs": 0, "ecc": False, "model": FLEX, "name": "Flex 170", **more}
    one = uid(number, index + 1)
    return AllocatableGpu(uid=one, memory=memory, millicores=millicores, vfindex=index, type=DeviceType.VF, **fields)


def state(*devices: AllocatableGpu, name: str = "n1", tainted: Iterable[str] = (), status: str = READY, **spec: Any) -> GpuAllocationState:
    taints = {one: TaintedGpu(reasons={"hot": True}) for one in tainted}
    has = StateSpec(allocatable_devices={device.uid: device for device in devices}, tainted_devices=taints, **spec)
    return GpuAllocationState(metadata=ObjectMeta(name=name), spec=has, status=status)


def want(kind: str = "gpu", *, shared: bool = False, monitor: bool = False, name: str = "", **claim: Any) -> Demand:
    """`name` is a glob of the class's device selector."""
    selectors = (DeviceSelector("gpu", name),) if name else ()
    return Demand(ClassParameters(shared, monitor, selectors), ClaimParameters(type=DeviceType(kind), **claim))


def holds(*parts: Part, shared: bool = False, node: str = "n1") -> Handle:
    return Handle(version=VERSION, node=node, parts=parts, shared=shared)
