"""Says again and again that this node's plugin lives: a Lease, whose end makes the controller pass the node over.

A plugin that was killed, or whose machine is gone, leaves a GpuAllocationState that says Ready.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from dra import backoff, election
from dra.classic.names import HEARTBEAT_LABEL, heartbeat_name
from dra.decommissioning import Stage
from dra.kube.meta import OwnerReference
from dra.kube.node import owner_of
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import ApiError, Clock, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 15.0
DURATION_SECONDS: Final = 50
"""Three beats may be lost."""
FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 5.0

LEASES: Final[Resource[dict[str, Any]]] = Resource("coordination.k8s.io/v1", "leases", dict, namespaced=True)


class Heartbeat:
    """`run` is the task."""

    def __init__(
        self,
        kube: KubeApi,
        node_name: NodeName,
        namespace: str,
        *,
        holder: str,
        node: Latest[OwnNode | None],
        clock: Clock,
        random: Callable[[], float],
        stage: Latest[Stage] | None = None,
    ) -> None:
        """
        Args:
            holder: tells one plugin from the next, for people.
            stage: of the driver's removal; a node that is clean has no Lease.
        """
        self._stage = stage if stage is not None else Latest(Stage.IN_SERVICE)
        self._kube, self._node_name, self._namespace, self._holder = kube, node_name, namespace, holder
        self._node, self._clock, self._random = node, clock, random

    async def run(self) -> None:
        """Beat until cancelled. Trouble with the API server never ends it."""
        while self._node.value is None:
            await self._node.wait_newer(self._node.version)
        said: str | None = None
        retries = self._retries()
        while True:
            began, seen, stage = trio.current_time(), self._stage.version, self._stage.value
            beats = stage in (Stage.IN_SERVICE, Stage.DRAINING)
            try:
                with trio.fail_after(BEAT_SECONDS):
                    if beats:
                        await self._beat()
                    elif stage is Stage.CLEAN:
                        await self._end()
            except (ApiError, trio.TooSlowError) as error:
                if said != str(error):
                    said = str(error)
                    log.warning("cannot renew the Lease by which the controller knows that this plugin lives: %s", error)
                await trio.sleep(next(retries))
                continue
            said, retries = None, self._retries()
            with trio.move_on_at(began + BEAT_SECONDS if beats else float("inf")):
                await self._stage.wait_newer(seen)

    async def _end(self) -> None:
        with contextlib.suppress(NotFound):
            await self._kube.delete(LEASES, heartbeat_name(self._node_name), namespace=self._namespace)

    async def _beat(self) -> None:
        name, now = heartbeat_name(self._node_name), election.timestamp(self._clock())
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        body: dict[str, Any] = {"metadata": {"labels": {HEARTBEAT_LABEL: "true"}}, "spec": spec}
        try:
            await self._kube.patch(LEASES, name, body, content_type="application/merge-patch+json", namespace=self._namespace)
        except NotFound:
            node = self._node.value
            owners = [_json(owner_of(self._node_name, node.uid))] if node is not None and node.uid else []
            body["metadata"] |= {"name": name, "namespace": self._namespace, "ownerReferences": owners}
            body |= {"apiVersion": LEASES.group_version, "kind": "Lease"}
            spec["acquireTime"] = now
            await self._kube.create(LEASES, body, namespace=self._namespace)

    def _retries(self) -> Any:
        return backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)


def _json(owner: OwnerReference) -> dict[str, Any]:
    return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
