"""Watches over the whole cluster with structured DRA, and says in Events and metrics what lasts too long.

It repairs nothing: slices are the node plugins', claims are the scheduler's. Whoever leads next begins with a new grace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from dra import cluster_watch
from dra.cluster_watch import GRACE_SECONDS, Incidents, Subject
from dra.kube.event_reasons import Reason
from dra.kube.events import Regarding, Weight
from dra.kube.watched import PluginPod, WatchedClaim, WatchedNode, WatchedSlice
from dra.names import DRIVER_NAME
from dra.slices import GROUP
from nursery_apps.mirror import Mirror
from nursery_apps.seams import KubeApi, Resource

log = logging.getLogger(__name__)

APART_SECONDS: Final = 2.0
"""Between two looks: one goes through all nodes and claims, and nothing here is urgent."""
SETTLING_SECONDS: Final = 60.0
"""How often it is looked whether the copies are up to date again, while one is not."""

PODS: Final[Resource[PluginPod]] = Resource("v1", "pods", PluginPod, namespaced=True)
NODES: Final[Resource[WatchedNode]] = Resource("v1", "nodes", WatchedNode)

Announce = Callable[[Regarding, Weight, Reason, str], None]


class SliceWatch:
    """For one API version; whoever notices that another is spoken makes a new one."""

    def __init__(
        self,
        kube: KubeApi,
        *,
        version: str,
        namespace: str,
        announce: Announce,
        on_counts: Callable[[Mapping[str, int]], None],
        random: Callable[[], float],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """
        Args:
            version: of resource.k8s.io, one that serves slices and claims.
            namespace: where the plugins' pods are.
            on_counts: told how many incidents there are of each reason, when that has changed.
        """
        self._version = version
        self._announce = announce
        self._on_counts = on_counts
        self._incidents = Incidents(grace_seconds)
        self._changed = trio.Event()
        self._counts: Mapping[str, int] | None = None

        def mirror(what: Resource[Any], *, namespace: str = "", field_selector: str = "") -> Mirror[Any]:
            return Mirror(kube, what, namespace=namespace, field_selector=field_selector, random=random, on_change=self._wake)

        group_version = f"{GROUP}/{version}"
        self._pods: Mirror[PluginPod] = mirror(PODS, namespace=namespace)
        self._nodes: Mirror[WatchedNode] = mirror(NODES)
        self._slices: Mirror[WatchedSlice] = mirror(
            Resource(group_version, "resourceslices", WatchedSlice), field_selector=f"spec.driver={DRIVER_NAME}"
        )
        self._claims: Mirror[WatchedClaim] = mirror(Resource(group_version, "resourceclaims", WatchedClaim, namespaced=True))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; ready when everything was read once."""
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for mirror in self._mirrors:
                    starting.start_soon(nursery.start, mirror.run)
            task_status.started()
            while True:
                self._changed = trio.Event()
                due = self._look()
                with trio.move_on_at(due):
                    await self._changed.wait()
                await trio.sleep(APART_SECONDS)

    @property
    def why_behind(self) -> str | None:
        """Why a copy may be behind the truth: then nothing is judged."""
        return next((mirror.error.value for mirror in self._mirrors if mirror.error.value is not None), None)

    @property
    def _mirrors(self) -> tuple[Mirror[Any], ...]:
        return self._pods, self._nodes, self._slices, self._claims

    def _wake(self, _before: object, _after: object) -> None:
        self._changed.set()

    def _look(self) -> float:
        """Judge, tell, and return when to look again at the latest."""
        now = trio.current_time()
        if self.why_behind is not None:
            return now + SETTLING_SECONDS
        nodes = {name: node for (_, name), node in self._nodes.objects.items()}
        found = cluster_watch.look(self._pods.objects.values(), nodes, self._slices.objects.values(), self._claims.objects.values())
        told = self._incidents.see(now, found)
        for subject, text in told.begun:
            log.warning("%s: %s", subject.reason, text)
            self._announce(self._regarding(subject), Weight.WARNING, subject.reason, text)
        for subject in told.ended:
            text = f"{subject.reason} is over"
            log.info("%s %s: %s", subject.kind, subject.name, text)
            self._announce(self._regarding(subject), Weight.NORMAL, cluster_watch.ENDED[subject.reason], text)
        counts = self._incidents.counts()
        if counts != self._counts:
            self._counts = counts
            self._on_counts(counts)
        return self._incidents.due()

    def _regarding(self, subject: Subject) -> Regarding:
        if subject.kind == "Node":
            # `kubectl describe node` looks for Events under the Node's name as UID.
            return Regarding("Node", subject.name, uid=subject.name)
        return Regarding(subject.kind, subject.name, subject.namespace, subject.uid, f"{GROUP}/{self._version}")
