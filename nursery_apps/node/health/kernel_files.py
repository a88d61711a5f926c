"""Reads what the kernel's files say of each GPU's health, again and again, and hears what its events say.

A card that is dying may never let go of whoever reads its files (sysfs takes the driver's locks). Each is read by itself, for a bounded
time, and left alone until the kernel comes back: the others, and the program, go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import trio

from dra.devices import Gpu, Inventory, Kind
from dra.durations import seconds
from dra.health import health_settings, rates, readings, telemetry, thresholds, uevent_facts
from dra.health.conditions import CONDITIONS
from dra.health.facts import Fact, Facts, Severity, Tell
from dra.health.health_settings import Health
from dra.health.limits import Limits
from dra.health.readings import Reading
from dra.health.telemetry import Sample
from dra.health.verdict import UNRESPONSIVE
from dra.kernel_tree import KernelTree
from dra.names import Bdf
from nursery_apps.latest import Latest
from nursery_apps.seams import DeviceEvent, Hung, KernelCall

log = logging.getLogger(__name__)

FILES: Final = "sysfs"
EVENTS: Final = "uevents"
READ_SECONDS: Final = 2.0
"""Some dozens of files take a millisecond or two; a GT that wakes up for it, some tens."""


_HANGS: Final[Facts] = {UNRESPONSIVE: Fact(UNRESPONSIVE, Severity.FAILED, "reading its files hangs in the kernel")}


class OnSamples(Protocol):
    def __call__(self, bdf: Bdf, samples: list[Sample], /) -> None:
        """The newest figures of a GPU; empty: there are none any more."""


class _Seen(msgspec.Struct, frozen=True):
    device: str
    reading: Reading
    facts: Facts


class KernelFiles:
    """`run` is the task; `hear` takes uevents."""

    def __init__(
        self,
        tree: KernelTree,
        inventory: Latest[Inventory],
        settings: Latest[Health],
        *,
        call: KernelCall,
        tell: Tell,
        on_samples: OnSamples,
    ) -> None:
        self._tree, self._inventory, self._settings = tree, inventory, settings
        self._call, self._tell, self._on_samples = call, tell, on_samples
        self._seen: dict[Bdf, _Seen] = {}
        self._heard: Mapping[Bdf, Facts] = {}
        self._hanging: dict[Bdf, trio.Event] = {}
        self._soon = trio.Event()
        self._in_doubt = False
        """Something was measured that was not so at the reading before."""

    @property
    def hanging(self) -> int:
        """GPUs on which a read hangs in the kernel, each with a thread."""
        return sum(not back.is_set() for back in self._hanging.values())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until cancelled; ready when every GPU was read once, or was given up for now."""
        while True:
            self._soon = trio.Event()
            settings, inventory = self._settings.version, self._inventory.version  # a card that comes meanwhile is read at once after it
            await self._round()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self._wait(settings, inventory)

    def hear(self, event: DeviceEvent) -> None:
        """Take a uevent in: what it says counts, and its card is read at once."""
        heard = uevent_facts.after(
            self._heard, action=event.action, subsystem=event.subsystem, sys_path=event.sys_path, properties=event.properties
        )
        if heard is self._heard:
            return
        for bdf in heard.keys() | self._heard.keys():
            if heard.get(bdf) != self._heard.get(bdf):
                self._tell(EVENTS, bdf, heard.get(bdf))
        self._heard = heard
        self._soon.set()

    async def _round(self) -> None:
        self._in_doubt = False
        health = self._settings.value
        gpus = {gpu.bdf: gpu for gpu in self._inventory.value.gpus if gpu.kind is Kind.PF} if health.enabled else {}
        for bdf in (self._seen.keys() | self._hanging.keys()) - gpus.keys():
            self._seen.pop(bdf, None)
            self._tell(FILES, bdf, None)
            self._on_samples(bdf, [])
        for gpu in gpus.values():
            await self._read(gpu, health)

    async def _read(self, gpu: Gpu, health: Health) -> None:
        hanging = self._hanging.get(gpu.bdf)
        if hanging is not None and not hanging.is_set():
            self._tell(FILES, gpu.bdf, _HANGS)  # it may have been away from what is watched meanwhile
            return
        self._hanging.pop(gpu.bdf, None)
        try:
            now = await self._call(partial(readings.read, self._tree, gpu, trio.current_time()), seconds=READ_SECONDS)
        except Hung as hung:
            log.error("%s: reading its files hangs in the kernel; it is left alone until that comes back", gpu.bdf)
            self._hanging[gpu.bdf] = hung.back
            self._tell(FILES, gpu.bdf, _HANGS)
            self._on_samples(gpu.bdf, [])
            return
        before = self._seen.get(gpu.bdf)
        if before is not None and before.device != gpu.device:
            before = None
        earlier = before.reading if before is not None else None
        previous = before.facts if before is not None else {}
        facts = thresholds.facts(earlier, now, device=gpu.device, previous=previous, limits=_limits(health))
        self._seen[gpu.bdf] = _Seen(gpu.device, rates.carried(earlier, now), facts)
        self._in_doubt = self._in_doubt or any(_is_doubtful(fact, previous.get(key)) for key, fact in facts.items())
        self._tell(FILES, gpu.bdf, facts)
        self._on_samples(gpu.bdf, telemetry.samples(earlier, now) if health.telemetry.enabled else [])

    async def _wait(self, settings: int, inventory: int) -> None:
        """Until it is time, or there is a reason to read now. What was measured once is measured again before it counts."""
        health = self._settings.value
        period = seconds(health.period)
        if self._in_doubt:
            period = min(period, health_settings.terms(health).hold_down / 2)
        with trio.move_on_after(period):
            async with trio.open_nursery() as either:

                async def until(wait: Callable[[], Any]) -> None:
                    await wait()
                    either.cancel_scope.cancel()

                either.start_soon(until, self._soon.wait)
                either.start_soon(until, partial(self._settings.wait_newer, settings))
                either.start_soon(until, partial(self._inventory.wait_newer, inventory))


def _is_doubtful(fact: Fact, before: Fact | None) -> bool:
    """A bad measurement that was not so bad before, and may be a sensor's mistake."""
    return not CONDITIONS[fact.condition].at_once and fact.severity > (before.severity if before is not None else Severity.FINE)


def _limits(health: Health) -> Limits:
    limits = health.limits
    return Limits(
        temperature_degraded_celsius=limits.temperature_degraded,
        temperature_failed_celsius=limits.temperature_failed,
        power_watts=limits.power_degraded,
    )
