"""Node, as much of it as the driver reads of its own."""

from __future__ import annotations

import msgspec

from dra.kube.meta import ObjectMeta, OwnerReference


class NodeInfo(msgspec.Struct, rename="camel", frozen=True):
    kubelet_version: str = ""
    boot_id: str = msgspec.field(name="bootID", default="")


class NodeStatus(msgspec.Struct, rename="camel", frozen=True):
    node_info: NodeInfo = NodeInfo()


class Node(msgspec.Struct, rename="camel", frozen=True):
    metadata: ObjectMeta
    status: NodeStatus = NodeStatus()


def owner_of(name: str, uid: str) -> OwnerReference:
    """What makes the garbage collector remove an object together with its Node."""
    return OwnerReference(api_version="v1", kind="Node", name=name, uid=uid, controller=True)
