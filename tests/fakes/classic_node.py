"""The claims half of a node plugin on kubelets up to 1.30, and the claims that an API server of that time has."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from dra import discovery, sriov_settings
from dra.classic import allocatable, handle
from dra.classic.handle import Handle, Part
from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.devices import Gpu
from dra.names import Bdf, ClaimUid, NodeName
from dra.offer import Offer, Sight
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from nursery_apps.node.allocations import Allocations
from nursery_apps.node.claim_desk import ClaimRef, PreparedReply
from nursery_apps.node.classic.claims import ClassicClaims, HandleAllocations
from nursery_apps.node.reconciler import ClaimLookup
from nursery_apps.seams import KubeApi
from tests.fakes.claim_node import POOL, ClaimNode
from tests.fakes.kube_api import FakeKubeApi

NODE = POOL
NODE_NAME = NodeName(POOL)
NAMESPACE = "intel-gpu-resource-driver"


def api() -> FakeKubeApi:
    return FakeKubeApi(server_version="v1.28.15", versions=("v1alpha2",))


def text(*parts: Part, node: str = NODE, **fields: Any) -> str:
    """A handle."""
    return handle.render(Handle(version=1, node=node, parts=parts, **fields))


def whole(uid: str) -> Part:
    return Part(uid=uid, memory=14248, millicores=1000)


def vfs(uid: str, indexes: tuple[int, ...], *layout: tuple[str, int]) -> Part:
    return Part(uid=uid, vfs=indexes, layout=layout)


def claim(uid: str, data: str, *, reserved: bool = True) -> dict[str, Any]:
    """As resource.k8s.io/v1alpha2 has one that is allocated; its name is its UID."""
    return {
        "metadata": {"name": uid, "uid": uid},
        "spec": {"resourceClassName": "intel-gpu"},
        "status": {
            "driverName": CLASSIC_DRIVER_NAME,
            "allocation": {"resourceHandles": [{"driverName": CLASSIC_DRIVER_NAME, "data": data}]},
            "reservedFor": [{"resource": "pods", "name": "pod", "uid": "pod-uid"}] if reserved else [],
        },
    }


def count(kernel: SimKernel, pf: str) -> int:
    """VFs that a card has."""
    return discovery.scan(kernel).by_bdf()[Bdf(pf)].vfs_now


class ClassicNode(ClaimNode):
    """One life. `handles` is what the kubelet sends along, by claim."""

    driver = CLASSIC_DRIVER_NAME
    takes_back = True

    def __init__(
        self, handles: dict[str, str], *gpus: Gpu, server: FakeKubeApi | None = None, sriov: Sriov | None = None, **more: Any
    ) -> None:
        self.handles = handles
        super().__init__(server or api(), *gpus, sriov=sriov_settings.for_classic(sriov or Sriov()), **more)

    def allocations(self) -> Allocations:
        kube = cast(KubeApi, self.server)
        return HandleAllocations(kube, NodeName(self.name), NAMESPACE, inventory=self.inventory, sriov=self.sriov, random=lambda: 0.5)

    def lookup(self) -> ClaimLookup:
        return ClassicClaims(cast(KubeApi, self.server), NodeName(self.name))

    def desire(self, made: Offer, sight: Sight) -> Any:
        return allocatable.allocatable(made, sight, on_demand=self.sriov.value.mode == "on-demand")

    def ref(self, uid: str) -> ClaimRef:
        return ClaimRef(ClaimUid(uid), "default", uid, self.handles.get(uid, ""))

    async def cdi_ids(self, uid: str) -> tuple[str, ...]:
        """Of a claim that can be prepared."""
        reply: PreparedReply | str = await self.prepare(uid)
        assert not isinstance(reply, str), reply
        return tuple(cdi_id for device in reply for cdi_id in device.cdi_ids)

    def published(self, uid: str) -> dict[str, Any] | None:
        """What the controller is told of a device."""
        devices = self.offering.desired.value or {}
        found = cast(dict[str, Any], devices).get(uid)
        return None if found is None else cast(dict[str, Any], msgspec.to_builtins(found))
