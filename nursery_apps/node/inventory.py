"""Keeps the inventory: subscribe, scan, and scan again whenever the kernel says something changed.

Events only wake; what is true is read from the tree. The one fact that only an event carries, that a driver gave up on its card
(WEDGED=), is remembered until the card is bound anew or goes away.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import trio

from dra import devices, discovery
from dra.devices import Inventory
from dra.kernel_tree import KernelTree
from dra.names import Bdf, is_bdf
from nursery_apps.latest import Latest
from nursery_apps.seams import DeviceEvent, DeviceEvents, Hung, KernelCall, Resync

log = logging.getLogger(__name__)

EVENTS_WAITING: Final = 512
"""A card sends about ten events when it comes or goes; this holds fifty cards at once, beyond it one Resync stands for all."""
BURST_QUIET_SECONDS: Final = 0.02
"""A burst is over when nothing came for so long; events of one probe follow each other within a few milliseconds."""
BURST_AT_MOST_SECONDS: Final = 0.1
"""A burst that does not end is scanned in its middle: hotplug to slice stays under 100 ms or so."""
AFTERMATH_SECONDS: Final = 2.0
"""One more scan this long after the last event: udev makes by-path links and sets modes after the kernel's event."""
SCAN_DEADLINE_SECONDS: Final = 10.0
"""A scan of 64 GPUs takes a tenth of a second; one that takes longer hangs in the kernel (a sysfs file whose lock a dying card holds)."""
HUNG_SCANS_MAX: Final = 2
"""Threads that may hang in the kernel at once; they cannot be ended, so no more are started until one comes back."""

_PCI_OF_PATH: Final = re.compile(r"/([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?=/|$)")


class OnScan(Protocol):
    def __call__(self, seconds: float, hung: int, /) -> None:
        """A scan ended after so long, or was given up; `hung` threads are still in the kernel."""


class InventoryKeeper:
    """Owns `inventory`. `run` is the task; `rescan` makes it look at once."""

    def __init__(
        self,
        tree: KernelTree,
        events: DeviceEvents,
        *,
        call: KernelCall,
        rescan_seconds: Latest[float],
        on_scan: OnScan,
        on_wedged: Callable[[Bdf, str], None],
        on_event: Callable[[DeviceEvent], None] = lambda _event: None,
    ) -> None:
        """`on_event` is told every event as it comes."""
        self._tree = tree
        self._events = events
        self._rescan_seconds = rescan_seconds
        self._on_scan = on_scan
        self._on_wedged = on_wedged
        self._on_event = on_event
        self._wedged: dict[Bdf, str] = {}
        self._call = call
        self._hung = 0
        self._asked = trio.Event()
        self.inventory: Latest[Inventory] = Latest(Inventory())
        self.stale_because: str | None = None
        """Why the inventory may be behind the truth, for /readyz; None when the last scan was good."""

    async def run(self, *, task_status: trio.TaskStatus[Inventory] = trio.TASK_STATUS_IGNORED) -> None:
        """Scan until cancelled; ready when the first scan is done. Subscribed before it, so no change is missed.

        Raises:
            OSError: the event source cannot be opened.
        """
        send, receive = trio.open_memory_channel[DeviceEvent | Resync](EVENTS_WAITING)
        async with trio.open_nursery() as nursery, receive:
            await nursery.start(self._events.listen, send)
            await self._scan(nursery)
            task_status.started(self.inventory.value)
            while True:
                aftermath = await self._wait(receive)
                await self._scan(nursery)
                while aftermath:
                    aftermath = False
                    with trio.move_on_after(AFTERMATH_SECONDS):
                        aftermath = await self._burst(receive, await receive.receive())
                    await self._scan(nursery)

    def rescan(self) -> None:
        """Look now: something else than an event made us doubt."""
        self._asked.set()

    async def _wait(self, receive: trio.MemoryReceiveChannel[DeviceEvent | Resync]) -> bool:
        """Until there is a reason to scan. True if it was an event, which may have an aftermath."""
        woken = False
        async with trio.open_nursery() as either:

            async def event() -> None:
                nonlocal woken
                woken = await self._burst(receive, await receive.receive())
                either.cancel_scope.cancel()

            async def asked() -> None:
                await self._asked.wait()
                self._asked = trio.Event()
                either.cancel_scope.cancel()

            async def period(seen: int) -> None:
                await self._rescan_seconds.wait_newer(seen)
                either.cancel_scope.cancel()

            either.cancel_scope.deadline = trio.current_time() + self._rescan_seconds.value
            either.start_soon(event)
            either.start_soon(asked)
            either.start_soon(period, self._rescan_seconds.version)
        return woken

    async def _burst(self, receive: trio.MemoryReceiveChannel[DeviceEvent | Resync], first: DeviceEvent | Resync) -> bool:
        """Take in a burst of events; always True."""
        self._note(first)
        with trio.move_on_after(BURST_AT_MOST_SECONDS):
            while True:
                with trio.move_on_after(BURST_QUIET_SECONDS) as quiet:
                    self._note(await receive.receive())
                if quiet.cancelled_caught:
                    break
        return True

    def _note(self, event: DeviceEvent | Resync) -> None:
        if isinstance(event, Resync):
            log.warning("events were lost (%s): reading everything again", event.why)
            return
        self._on_event(event)
        bdfs = _PCI_OF_PATH.findall(event.sys_path)
        if not bdfs or not is_bdf(bdfs[-1]):
            return
        bdf, properties = Bdf(bdfs[-1]), event.properties
        if event.subsystem == "drm" and (how := _gave_up(properties)) is not None:
            if bdf not in self._wedged:
                log.error("%s is wedged (%s): withdrawn until its driver is bound again", bdf, how)
                self._on_wedged(bdf, how)
            self._wedged[bdf] = how
        elif event.subsystem == "pci" and event.action in ("add", "bind", "unbind", "remove") and self._wedged.pop(bdf, None) is not None:
            log.info("%s: %s ends its wedged state", bdf, event.action)

    async def _scan(self, nursery: trio.Nursery) -> None:
        """Read the machine in a worker thread, which is left behind if the kernel does not let go of it."""
        if self._hung >= HUNG_SCANS_MAX:
            self.stale_because = f"{self._hung} scans hang in the kernel: see its log for the GPU that does not answer"
            return
        started = trio.current_time()
        try:
            found = await self._call(partial(discovery.scan, self._tree, wedged=dict(self._wedged)), seconds=SCAN_DEADLINE_SECONDS)
        except Hung as hung:
            self._hung += 1
            nursery.start_soon(self._await_return, hung.back)
            self.stale_because = f"a scan has hung in the kernel for {hung.seconds:.0f} s; the last good one still holds"
            log.error("%s", self.stale_because)
            return
        finally:
            self._on_scan(trio.current_time() - started, self._hung)
        self.stale_because = None
        changes = devices.diff(self.inventory.value, found)
        if changes:
            _report(changes)
        self.inventory.set(found)

    async def _await_return(self, back: trio.Event) -> None:
        await back.wait()
        self._hung -= 1
        log.info("a hung scan came back; %d still hang", self._hung)
        self.rescan()


def _gave_up(properties: Mapping[str, str]) -> str | None:
    """How a driver says that it gave up on its card: xe and newer i915 by WEDGED=, prelim i915 by RESET_FAILED=1."""
    if (methods := properties.get("WEDGED")) is not None:
        return None if methods == "none" else methods  # "none": recovered by itself, informational
    return "reset failed" if properties.get("RESET_FAILED") == "1" else None


def _report(changes: devices.Changes) -> None:
    for gpu in changes.appeared:
        log.info("found %s %s (%s, driver %s)", gpu.bdf, gpu.model or gpu.device, gpu.state, gpu.driver)
    for gpu in changes.vanished:
        log.warning("gone: %s %s", gpu.bdf, gpu.model or gpu.device)
    for before, after in changes.changed:
        if (before.state, before.driver, before.card, before.render) != (after.state, after.driver, after.card, after.render):
            log.info("%s is now %s (driver %s, card %s, render %s)", after.bdf, after.state, after.driver, after.card, after.render)
