"""Follows this node's own Node object: its UID owns the slices, its labels select settings, its kubelet decides what is spoken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from dra.kube.node import Node
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.mirror import Mirror
from nursery_apps.seams import KubeApi, Resource

log = logging.getLogger(__name__)

NODES: Final[Resource[Node]] = Resource("v1", "nodes", Node)


class OwnNode(msgspec.Struct, frozen=True):
    """What was last seen of it."""

    uid: str = ""
    labels: dict[str, str] = {}
    kubelet_version: str = ""
    deleted: bool = False
    """The object is gone, be it for good or to come back under another UID."""


class OwnNodeKeeper:
    """Owns `node`: None until the object was read for the first time."""

    def __init__(self, kube: KubeApi, name: NodeName, random: Callable[[], float]) -> None:
        self._name = name
        self._mirror = Mirror(kube, NODES, field_selector=f"metadata.name={name}", random=random)
        self.node: Latest[OwnNode | None] = Latest(None)

    @property
    def error(self) -> Latest[str | None]:
        """Why `node` may be behind the truth."""
        return self._mirror.error

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; ready when the object (or its absence) was read."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._mirror.run)
            seen = self._mirror.changes.version
            self._look()
            task_status.started()
            while True:
                await self._mirror.changes.wait_newer(seen)
                seen = self._mirror.changes.version
                self._look()

    def _look(self) -> None:
        before, found = self.node.value, self._mirror.objects.get(("", self._name))
        if found is None:
            if before is None or not before.deleted:
                log.warning("there is no Node %s in the API server: is --node-name right?", self._name)
            self.node.set(msgspec.structs.replace(before or OwnNode(), deleted=True))
            return
        now = OwnNode(found.metadata.uid, dict(found.metadata.labels or {}), found.status.node_info.kubelet_version)
        if before is not None and before.uid not in ("", now.uid):
            log.info("Node %s was created anew: its UID is now %s", self._name, now.uid)
        self.node.set(now)
