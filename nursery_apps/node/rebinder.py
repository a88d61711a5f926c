"""Moves one PCI function between drivers, and binds it anew when it is wedged: a step at a time, computed from what is true by then."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

import trio

from dra import binding
from dra.discovery import DRM_DRIVERS
from dra.errors import HardwareFault
from dra.health import recovery
from dra.health.recovery import Method
from dra.kernel_tree import KernelTree
from dra.names import Bdf

log = logging.getLogger(__name__)

UP_SECONDS: Final = 30.0
"""For VFs to get their driver and nodes, or a function its new driver; the kernel is done when its write returns, udev some time after."""
TRIES: Final = 3
"""Of the same step towards a driver: once may be somebody else's race, three times is a fight that neither wins."""
LOOK_AT_MOST_SECONDS: Final = 10.0
"""For reading a function's files."""


class OnStep(Protocol):
    def __call__(self, bdf: Bdf, step: str, seconds: float, /) -> None:
        """A step of a card took so long: `MakeVfs`, `Provision`, `Unbind`, ..."""


class InKernel(Protocol):
    def __call__(self, doing: str, work: Callable[[], Any], seconds: float, /) -> Awaitable[Any]:
        """Do something that may block; `doing` is for people, should it hang."""


class Rebinder:
    def __init__(self, tree: KernelTree, in_kernel: InKernel, change: Callable[[], Awaitable[None]], on_step: OnStep) -> None:
        """`change` waits until something may have changed."""
        self._tree, self._in_kernel, self._change, self._on_step = tree, in_kernel, change, on_step

    async def bind(self, bdf: Bdf, driver: str | None) -> None:
        """To `driver`, a vfio driver, or with None back to the DRM driver.

        Raises:
            DriverError: it cannot be.
            Hung: the kernel does not come back.
        """
        began = trio.current_time()
        taken: list[binding.Act] = []
        while True:
            facts = await self._facts(bdf)
            if (why_not := binding.refusal(facts, driver)) is not None:
                raise HardwareFault(f"{bdf} cannot be bound to {driver or 'its own driver'}: {why_not}", reason="DriverNotSwitched")
            step = binding.next_step(facts, driver)
            if step is None:
                return
            if isinstance(step, binding.Await):
                if trio.current_time() - began > UP_SECONDS:
                    raise HardwareFault(f"{bdf}: {step.what} did not come within {UP_SECONDS:.0f} s", reason="DriverNotSwitched")
                await self._change()
                continue
            if taken.count(step) == TRIES:
                raise HardwareFault(
                    f"{bdf} does not stay as it should: {facts.driver or 'no driver'} takes it each time. Somebody else binds it, or "
                    "that driver was given its id (vfio-pci.ids on the kernel's command line, new_id)",
                    reason="DriverNotSwitched",
                )
            taken.append(step)
            await self._take(bdf, step)

    async def recover(self, bdf: Bdf, method: Method) -> None:
        """Bind it anew, after a reset of the bus if that is the method. Whether that helped, a scan will tell.

        Raises:
            DriverError: somebody else's VFs are in the way, the kernel does not reset it, or no driver takes it.
            Hung: the kernel does not come back.
        """
        done: set[type[recovery.Step]] = set()
        refused: HardwareFault | None = None
        while True:
            facts = await self._facts(bdf)
            if (why_not := recovery.refusal(facts)) is not None:
                raise HardwareFault(why_not, reason="NotRecovered")
            step = recovery.next_step(facts, method, done)
            if step is None:
                break
            done.add(type(step))
            try:
                await self._take(bdf, step)
            except OSError as error:  # of the reset: the card gets its driver back all the same
                name = errno.errorcode.get(error.errno or 0, "?")
                refused = HardwareFault(
                    f"{bdf} cannot be reset: {error.strerror} ({name}); its driver was bound anew", reason="NotRecovered"
                )
        if refused is not None:
            raise refused
        if binding.Probe in done and facts.driver not in DRM_DRIVERS:
            raise HardwareFault(f"{bdf} was bound anew, and {facts.driver or 'no driver'} has it now", reason="NotRecovered")

    async def _take(self, bdf: Bdf, step: recovery.Step | binding.Act) -> None:
        log.info("%s: %s", bdf, step)
        started = trio.current_time()
        work: Callable[[], None]
        if isinstance(step, recovery.Reset):
            work = partial(recovery.reset, self._tree, bdf)
        else:
            work = partial(binding.perform, self._tree, bdf, step)
        await self._in_kernel(type(step).__name__.lower(), work, UP_SECONDS)
        self._on_step(bdf, type(step).__name__, trio.current_time() - started)

    async def _facts(self, bdf: Bdf) -> binding.Facts:
        found: binding.Facts = await self._in_kernel("looking at a function", partial(binding.facts, self._tree, bdf), LOOK_AT_MOST_SECONDS)
        return found
