"""What the controller watches over with structured DRA, as little of each kind as it looks at. The JSON is the same in every version."""

from __future__ import annotations

import msgspec

from dra.kube.claims import Consumer
from dra.kube.meta import ObjectMeta


class PluginPodSpec(msgspec.Struct, rename="camel", frozen=True):
    node_name: str = ""


class Condition(msgspec.Struct, frozen=True):
    type: str = ""
    status: str = ""


class PluginPodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: tuple[Condition, ...] | None = None


class PluginPod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: PluginPodSpec = PluginPodSpec()
    status: PluginPodStatus = PluginPodStatus()

    @property
    def is_ready(self) -> bool:
        return any((condition.type, condition.status) == ("Ready", "True") for condition in self.status.conditions or ())


class WatchedNodeInfo(msgspec.Struct, rename="camel", frozen=True):
    kubelet_version: str = ""


class WatchedNodeStatus(msgspec.Struct, rename="camel", frozen=True):
    conditions: tuple[Condition, ...] | None = None
    node_info: WatchedNodeInfo = WatchedNodeInfo()


class WatchedNode(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: WatchedNodeStatus = WatchedNodeStatus()

    @property
    def is_ready(self) -> bool:
        """False if its kubelet says no, or says nothing any more."""
        return all(condition.status == "True" for condition in self.status.conditions or () if condition.type == "Ready")


class WatchedPool(msgspec.Struct, rename="camel", frozen=True):
    name: str = ""
    generation: int = 0
    resource_slice_count: int = 1


class WatchedSliceSpec(msgspec.Struct, rename="camel", frozen=True):
    node_name: str = ""
    pool: WatchedPool = WatchedPool()


class WatchedSlice(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: WatchedSliceSpec = WatchedSliceSpec()


class WatchedResult(msgspec.Struct, frozen=True):
    driver: str = ""
    pool: str = ""


class WatchedDevices(msgspec.Struct, frozen=True):
    results: tuple[WatchedResult, ...] | None = None


class WatchedAllocation(msgspec.Struct, frozen=True):
    devices: WatchedDevices = WatchedDevices()


class WatchedClaimStatus(msgspec.Struct, rename="camel", frozen=True):
    allocation: WatchedAllocation | None = None
    reserved_for: tuple[Consumer, ...] | None = None


class WatchedClaim(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: WatchedClaimStatus | None = None
