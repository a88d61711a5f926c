"""GpuAllocationState: what a node has, whether it is ready, and what is tainted there.

Several write into it, each what is its own, by merge patches that touch nothing else: the node's plugin inventory and status, the
receiver of alerts taints. What claims hold is not in it; `allocated_claims` and `prepared_claims` are the original driver's and only read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from dra.kube.meta import ObjectMeta


class DeviceType(enum.StrEnum):
    GPU = "gpu"
    VF = "vf"
    ANY = "any"
    """Only ever asked for."""


class AllocatableGpu(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One GPU or VF. The first nine fields are the original's."""

    uid: str
    memory: int
    """MiB, 0 where it is not known and for integrated GPUs."""
    millicores: int
    model: str
    """PCI id, `0x56c0`."""
    type: DeviceType
    parentuid: str
    """Of a VF."""
    maxvfs: int
    """Of a card that the controller may have cut; 0 of one that stays as it is."""
    vfindex: int
    """Of a VF, from 0."""
    ecc: bool
    name: str = ""
    """Marketing name."""
    profile: str = ""
    """Of a VF that this driver made; empty for one that somebody else made."""
    tiles: int = 1
    quotas: str = "none"
    """Which files take quotas of VFs: a `dra.vf_cards.Interface`."""
    bulk_quota: bool = msgspec.field(name="bulkQuota", default=False)
    """The driver takes one quota of memory for all VFs only."""


class TaintedGpu(msgspec.Struct, frozen=True, gc=False):
    reason: str = ""
    """v0.3.0 of the original wrote one."""
    reasons: dict[str, bool] | None = None


class AllocatedGpu(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A device of a claim as the original driver recorded it; `uid` is empty for a VF that is yet to be made."""

    uid: str = ""
    memory: int = 0
    millicores: int = 0
    type: str = ""
    parentuid: str = ""
    vfindex: int = 0
    profile: str = ""


class AllocatedClaim(msgspec.Struct, frozen=True, gc=False):
    gpus: list[AllocatedGpu] | None = None


class StateSpec(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    allocatable_devices: Mapping[str, AllocatableGpu] | None = None
    tainted_devices: Mapping[str, TaintedGpu] | None = None
    allocated_claims: Mapping[str, AllocatedClaim] | None = None
    prepared_claims: Mapping[str, list[AllocatedGpu]] | None = None


class GpuAllocationState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: StateSpec = StateSpec()
    status: str = ""
    """`Ready` or anything else."""

    @classmethod
    def empty(cls, node: str) -> GpuAllocationState:
        """Of a node that has none stored."""
        return cls(metadata=ObjectMeta(name=node))

    @property
    def devices(self) -> Mapping[str, AllocatableGpu]:
        return self.spec.allocatable_devices or {}

    @property
    def tainted(self) -> frozenset[str]:
        """Uids with a reason."""
        return frozenset(
            uid for uid, taint in (self.spec.tainted_devices or {}).items() if taint.reason or any((taint.reasons or {}).values())
        )


READY = "Ready"
NOT_READY = "NotReady"
