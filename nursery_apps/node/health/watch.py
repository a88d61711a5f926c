"""All that watches over this node's GPUs as one part: the sources, the monitor they tell, who acts on its verdicts, who passes them on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import trio

from dra.devices import Gpu, Inventory
from dra.errors import DriverError
from dra.health import telling
from dra.health.health_settings import Health
from dra.health.recovery import Method
from dra.health.telemetry import Sample
from dra.health.telling import NO_OPINION, Opinion
from dra.health.told import Level, Told
from dra.health.verdict import Verdict
from dra.kernel_tree import KernelTree
from dra.ledger import Ledger
from dra.names import Bdf
from dra.records import Record
from nursery_apps.latest import Latest
from nursery_apps.metrics import Metrics
from nursery_apps.node.health import telemetry_metrics
from nursery_apps.node.health.kernel_files import KernelFiles
from nursery_apps.node.health.monitor import HealthMonitor
from nursery_apps.node.health.recoverer import Recoverer
from nursery_apps.node.health.telemetry_metrics import Holder, TelemetryMetrics
from nursery_apps.node.health.xpumd_source import XpumdSource
from nursery_apps.node.reporter import Reporter
from nursery_apps.rpc import RpcCaller
from nursery_apps.seams import Clock, DeviceEvent, KernelCall, RunBlocking, StateDir


class HealthWatch:
    """Owns `opinion` and `told`. `run` is the task."""

    def __init__(
        self,
        settings: Health,
        *,
        tree: KernelTree,
        call: KernelCall,
        inventory: Latest[Inventory],
        ledger: Latest[Ledger],
        known: Callable[[], Iterable[Gpu]],
        planned: Callable[[], Iterable[Gpu]],
        offered: Callable[[], Latest[Any]],
        state: StateDir,
        run_blocking: RunBlocking,
        clock: Clock,
        reporter: Reporter,
        metrics: Metrics,
        caller: RpcCaller,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            known: GPUs that are there, or gone and held.
            planned: VFs of all layouts in force, made or not.
            offered: changes when those may have.
            caller: for xpumd.
        """
        self._known, self._planned, self._offered = known, planned, offered
        self._inventory, self._ledger, self._clock, self._reporter = inventory, ledger, clock, reporter
        self._metrics, self._figures = metrics, TelemetryMetrics(metrics, by_claim=settings.telemetry.claim_labels)
        self._samples: dict[Bdf, list[Sample]] = {}
        self.settings: Latest[Health] = Latest(settings)
        self.monitor = HealthMonitor(
            self.settings,
            inventory,
            ledger,
            lambda: {gpu.bdf for gpu in planned()},
            state=state,
            run_blocking=run_blocking,
            clock=clock,
            on_verdict=self._on_verdict,
        )
        self.files = KernelFiles(tree, inventory, self.settings, call=call, tell=self.monitor.tell, on_samples=self._on_samples)
        self.xpumd = XpumdSource(caller, self.settings, inventory, tell=self.monitor.tell, random=random)
        self.recoverer = Recoverer(self.monitor, self.settings, inventory, ledger, clock=clock, say=reporter.node_event)
        self.opinion: Latest[Opinion] = Latest(NO_OPINION)
        self.told: Latest[Told] = Latest({})

    @property
    def recoveries(self) -> Latest[Mapping[Bdf, Method]]:
        """Cards that are to be bound anew; whoever does it calls `recovered`."""
        return self.recoverer.wanted

    def recovered(self, bdf: Bdf, fault: DriverError | None) -> None:
        self.recoverer.ended(bdf, fault)

    def hear(self, event: DeviceEvent) -> None:
        """Take a uevent in."""
        self.files.hear(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; ready with the first verdicts, which are the inventory's: a card whose files hang holds up nobody."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.monitor.run)
            self._pass_on()
            nursery.start_soon(self.files.run)
            nursery.start_soon(self.xpumd.run)
            nursery.start_soon(self.recoverer.run)
            nursery.start_soon(self._follow)
            task_status.started()

    def expose(self) -> None:
        """Set the metrics to what is so now."""
        self._metrics.health(self.monitor.verdicts.value, self.files.hanging)
        holders = self._holders()
        gpus = self._inventory.value.by_bdf()
        self._figures.tell(
            telemetry_metrics.Told(bdf, gpus[bdf].model or gpus[bdf].device, samples, self._holder(holders.get(bdf, ())))
            for bdf, samples in self._samples.items()
            if bdf in gpus
        )

    async def _follow(self) -> None:
        async with trio.open_nursery() as nursery:
            for source in (self.monitor.verdicts, self.settings, self._offered()):
                nursery.start_soon(self._follow_one, source)

    async def _follow_one(self, source: Latest[Any]) -> None:
        seen = source.version
        while True:
            await source.wait_newer(seen)
            seen = source.version
            self._pass_on()

    def _pass_on(self) -> None:
        opinion = Opinion(self.monitor.verdicts.value, self.settings.value.effects)
        self.opinion.set(opinion)
        devices = {gpu.name: gpu for gpu in (*self._planned(), *self._known())}
        self.told.set(telling.told(opinion, devices.values(), self.told.value, self._clock()))

    def _on_verdict(self, bdf: Bdf, before: Verdict | None, now: Verdict) -> None:
        if now.level is not (before.level if before is not None else Level.OK):
            self._metrics.health_changed(bdf, now.level)
        self._reporter.verdict(bdf, before, now, self._holders().get(bdf, ()))

    def _on_samples(self, bdf: Bdf, samples: list[Sample]) -> None:
        if samples:
            self._samples[bdf] = samples
        else:
            self._samples.pop(bdf, None)

    def _holders(self) -> dict[Bdf, list[Record]]:
        """Claims by what they hold, and by its card."""
        found: dict[Bdf, list[Record]] = {}
        for record in self._ledger.value.records():
            for bdf in {bdf for grant in record.grants if not grant.admin for bdf in (grant.bdf, grant.card)}:
                found.setdefault(bdf, []).append(record)
        return found

    def _holder(self, records: Sequence[Record]) -> Holder:
        """Nobody's name where several have it: figures are the card's."""
        if len(records) != 1:
            return Holder()
        [record] = records
        return Holder(namespace=record.namespace, claim=record.name, pod=self._reporter.pod_of(record.uid))
