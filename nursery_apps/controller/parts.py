"""The controller's parts, each made once and told of the others; and what of them is said to probes.

`__main__` brings the edges, `app` runs the tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from dra import cluster_watch, controller_settings
from dra.controller_settings import ControllerConfiguration
from dra.durations import seconds
from dra.names import NodeName
from nursery_apps import log as log_lines
from nursery_apps.announcer import Announcer
from nursery_apps.controller.classic import ClassicAllocation
from nursery_apps.controller.dialect import Dialect, DialectKeeper
from nursery_apps.controller.leadership import Fence, Leadership
from nursery_apps.controller.metrics import ControllerMetrics
from nursery_apps.controller.paced_api import PacedKubeApi
from nursery_apps.controller.services import Services
from nursery_apps.controller.slice_watch import SliceWatch
from nursery_apps.fresh import Files
from nursery_apps.latest import Latest
from nursery_apps.probes import Check, Probes
from nursery_apps.reload import Reloader, Result, SettingsSource
from nursery_apps.seams import Clock, KubeApi, RunBlocking

log = logging.getLogger(__name__)

LEASE: str = "gpu-controller"
COMPONENT: str = "gpu.intel.com/controller"


class Parts:
    def __init__(
        self,
        *,
        namespace: str,
        identity: str,
        settings: ControllerConfiguration,
        source: SettingsSource[ControllerConfiguration] | None,
        kube: KubeApi,
        run_blocking: RunBlocking,
        files: Callable[[tuple[str, ...]], Files],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            namespace: the driver's own.
            identity: of this process and no other.
            files: opens certificates and tokens, by path.
        """
        self._namespace = namespace
        self._clock, self._random = clock, random
        self._policy = Latest(controller_settings.policy_of(settings))
        self._rate = Latest(settings.api_rate)
        # The Lease and the Events do not wait their turn behind a thousand claims.
        self._kube = PacedKubeApi(kube, self._rate)
        self.metrics = ControllerMetrics()
        self.announcer = Announcer(kube, component=COMPONENT, node=NodeName(identity), clock=clock)
        self.dialect = DialectKeeper(kube, random)
        self.leadership = Leadership(kube, namespace=namespace, name=LEASE, identity=identity, clock=clock)
        self.reloader: Reloader[ControllerConfiguration] = Reloader(
            settings, source, plan=controller_settings.plan, state=None, run_blocking=run_blocking, on_result=self._apply
        )
        self.services = Services(
            self._kube,
            namespace=namespace,
            settings=self.reloader.settings,
            metrics=self.metrics,
            files=files,
            run_blocking=run_blocking,
            random=random,
        )
        self._classic: ClassicAllocation | None = None
        """While this process leads on a classic cluster."""
        self._slices: SliceWatch | None = None
        """While it leads on another."""
        self._ready: Mapping[str, Check] = {
            "API server": lambda: self.dialect.error,
            "Lease": lambda: self.leadership.error,
            "watches": self._why_behind,
        }
        self._probes = Probes(
            live={"event loop": lambda: None},
            # A candidate is ready too: it is there to take over. What a leader lacks is said, and takes it out of nobody's service.
            ready=self._ready,
            metrics=self._exposition,
        )

    async def probes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Raises:
            OSError: the port is taken.
        """
        at = self.reloader.settings.value.probes
        await self._probes.run(at.address, at.port, task_status=task_status)

    async def lead(self) -> None:
        """Do a leader's work whenever this process is the leader, until cancelled."""
        await self.leadership.lead(self._work)

    async def _work(self, fence: Fence) -> None:
        """What the cluster needs, anew when another dialect is spoken there."""
        while True:
            seen = self.dialect.spoken.version
            spoken = self.dialect.spoken.value
            async with trio.open_nursery() as nursery:
                if spoken is not None and spoken.dialect is Dialect.CLASSIC:
                    nursery.start_soon(self._allocate, fence)
                elif spoken is not None and spoken.dialect is Dialect.STRUCTURED:
                    nursery.start_soon(self._watch_slices, spoken.version)
                await self.dialect.spoken.wait_newer(seen)
                nursery.cancel_scope.cancel()

    async def _allocate(self, fence: Fence) -> None:
        self._classic = ClassicAllocation(
            self._kube,
            fence,
            namespace=self._namespace,
            policy=self._policy,
            workers=self.reloader.settings.value.workers,
            clock=self._clock,
            random=self._random,
            announce=self.announcer.announce,
            on_allocated=self.metrics.allocated,
        )
        try:
            await self._classic.run()
        finally:
            self._classic = None

    async def _watch_slices(self, version: str) -> None:
        self._slices = SliceWatch(
            self._kube,
            version=version,
            namespace=self._namespace,
            announce=self.announcer.announce,
            on_counts=self.metrics.incidents,
            random=self._random,
            grace_seconds=seconds(self.reloader.settings.value.watch_grace),
        )
        try:
            await self._slices.run()
        finally:
            self._slices = None
            self.metrics.incidents(dict.fromkeys(cluster_watch.REASONS, 0))  # the next leader's to tell

    def _apply(self, result: Result) -> None:
        now = self.reloader.settings.value
        self._policy.set(controller_settings.policy_of(now))
        self._rate.set(now.api_rate)
        log_lines.set_level(now.logging.level)
        self.metrics.reload(result.outcome)

    def _why_behind(self) -> str | None:
        if self._classic is not None:
            return self._classic.stores.why_behind
        return self._slices.why_behind if self._slices is not None else None

    def _exposition(self) -> bytes:
        classic = self._classic
        ledger = classic.ledger if classic is not None else None
        why = [ledger.why_not_ready(node) for node in ledger.nodes()] if ledger is not None else []
        self.services.expose()
        self.metrics.state(
            ready={name: check() for name, check in self._ready.items()},
            behind=self._why_behind() is not None,
            events=self.announcer.written,
            events_dropped=self.announcer.dropped,
        )
        return self.metrics.snapshot(
            leading=self.leadership.leading,
            waiting=classic.allocator.waiting if classic is not None else 0,
            held=len(ledger.holdings()) if ledger is not None else 0,
            queue=len(classic.queue) if classic is not None else 0,
            failing=classic.queue.failing if classic is not None else 0,
            ready=sum(reason is None for reason in why),
            not_ready=sum(reason is not None for reason in why),
        )
