"""What watches over the GPUs of a simulated machine, without the rest of the plugin, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import trio

from dra import discovery
from dra.devices import Inventory
from dra.health.health_settings import Health
from dra.health.told import Level
from dra.health.verdict import Verdict
from dra.kube.events import Weight
from dra.ledger import Ledger
from dra.names import Bdf, NodeName
from dra.records import Kept, Record
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges.grpc_on_trio.client import RpcClient
from nursery_apps.latest import Latest
from nursery_apps.metrics import Metrics
from nursery_apps.node.health.watch import HealthWatch
from nursery_apps.node.inventory import BURST_QUIET_SECONDS
from nursery_apps.node.reporter import Reporter
from nursery_apps.seams import DeviceEvent
from tests.fakes import machines
from tests.fakes.claim_node import call_in_place, in_place
from tests.fakes.state_dir import MemoryStateDir, Power

EPOCH = 1_800_000_000.0


class Heard:
    """An announcer that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []
        """(kind of object, reason, message)"""

    def announce(self, about: Any, weight: Weight, reason: str, message: str) -> None:
        del weight
        self.said.append((about.kind, reason, message))

    def reasons(self, kind: str = "Node") -> list[str]:
        return [reason for about, reason, _ in self.said if about == kind]


class HealthBench:
    def __init__(self, machine: str = "server-4x-b60", *, disk: dict[str, bytes] | None = None, **health: Any) -> None:
        self.kernel: SimKernel = machines.kernel(machine)
        self.disk = disk if disk is not None else {}
        self.state = MemoryStateDir(self.disk, Power())
        self.inventory: Latest[Inventory] = Latest(discovery.scan(self.kernel))
        self.ledger: Latest[Ledger] = Latest(Ledger())
        self.offered: Latest[object] = Latest(None)
        self.heard = Heard()
        self.metrics = Metrics()
        self.reporter = Reporter(NodeName("n"), self.heard, self.metrics)  # type: ignore[arg-type]
        self.wedged: dict[Bdf, str] = {}
        self._changed = trio.Event()
        self.watch = HealthWatch(
            msgspec.convert({"period": "5s"} | health, Health),
            tree=self.kernel,
            call=call_in_place,
            inventory=self.inventory,
            ledger=self.ledger,
            known=lambda: self.inventory.value.gpus,
            planned=tuple,
            offered=lambda: self.offered,
            state=self.state,
            run_blocking=in_place,
            clock=lambda: EPOCH + trio.current_time(),
            reporter=self.reporter,
            metrics=self.metrics,
            caller=RpcClient(),
            random=lambda: 0.5,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[HealthBench]:
        leave = self.kernel.subscribe(self._event, lambda _why: None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._scan)
                await nursery.start(self.watch.run)
                yield self
                nursery.cancel_scope.cancel()
        finally:
            leave()

    def _event(self, action: str, subsystem: str, path: str, properties: Mapping[str, str]) -> None:
        event = DeviceEvent(action, subsystem, path, dict(properties))
        self.watch.hear(event)
        bdf = Bdf(next(part for part in reversed(path.split("/")) if part.count(":") == 2))
        if "WEDGED" in properties:
            self.wedged[bdf] = properties["WEDGED"]
        elif subsystem == "pci" and action in ("bind", "unbind"):
            self.wedged.pop(bdf, None)
        self._changed.set()

    async def _scan(self) -> None:
        """As the inventory's keeper does."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            await trio.sleep(BURST_QUIET_SECONDS)
            self.inventory.set(discovery.scan(self.kernel, wedged=self.wedged))

    def verdict(self, bdf: Bdf) -> Verdict:
        return self.watch.monitor.verdicts.value[bdf]

    def level(self, bdf: Bdf) -> Level:
        return self.verdict(bdf).level

    async def until(self, true: Callable[[], bool], seconds: float = 600) -> float:
        """How long it took until so, looking whenever a verdict changes."""
        began = trio.current_time()
        with trio.fail_after(seconds):
            while not true():
                await self.watch.monitor.verdicts.wait_newer(self.watch.monitor.verdicts.version)
        return trio.current_time() - began

    def hold(self, record: Record) -> None:
        self.ledger.set(self.ledger.value.apply([Kept(record)]))
