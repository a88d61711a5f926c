"""`SimKernel`: a fake machine behind the seam `dra.kernel_tree.KernelTree`, and what people and tests may do to it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from dra.sim_kernel import drivers, health, machine, pci, requests, symptoms, tree, uevents, vfio
from dra.sim_kernel.seam import Seam

FIRST_BOOT = "00000000-0000-4000-8000-000000000001"
"""boot_id of a machine nobody gave another."""


class SimKernel(Seam):
    """One fake machine in memory that acts as the kernel would.

    Safe to call from several threads if `lock` and what `make_lock` makes are real ones. Delays and hangs happen in the caller's thread,
    with the lock free. The calls beyond the seam raise ValueError for what cannot be done to this machine.
    """

    @classmethod
    def load(
        cls,
        document: object,
        name: str | None = None,
        *,
        sleep: Callable[[float], None] = lambda _seconds: None,
        lock: AbstractContextManager[object] | None = None,
        looking: AbstractContextManager[object] | None = None,
        make_lock: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        boot_id: str = FIRST_BOOT,
    ) -> Self:
        """Start a machine of a document (None: its only one); without `sleep` nothing takes time, without locks one thread may call.

        `looking` is a lock for where nothing is changed, if that is to be another one (see `Seam`).

        Raises:
            ValueError: the document is malformed; the message names the place in it.
        """
        described = machine.read(document, name)
        lock = lock or contextlib.nullcontext()
        return cls(described, sleep=sleep, lock=lock, looking=looking or lock, make_lock=make_lock, boot_id=boot_id)

    # --- listening -------------------------------------------------------------------------------------------------------------------

    def subscribe(self, on_event: uevents.Listener, on_overflow: Callable[[str], None] = lambda _why: None) -> Callable[[], None]:
        """Hear every uevent from now on; the result ends it. Called in whichever thread made the event, under the lock: be quick."""
        with self._looking:
            leave = self._uevents.subscribe(on_event, on_overflow)

        def locked_leave() -> None:
            with self._looking:
                leave()

        return locked_leave

    def overflow(self, why: str = "the receive buffer was full") -> None:
        """Events were lost (ENOBUFS)."""
        with self._looking:
            self._uevents.overflow(why)

    def record(self, recorder: Callable[[requests.Change], None]) -> None:
        """Have every change of the machine told from now on, by whomever it was made, in order and under the lock."""
        with self._looking:
            self._recorders.append(recorder)

    # --- cards that come and go ------------------------------------------------------------------------------------------------------

    def unplug(self, bdf: str) -> None:
        """Pull a card out; only `plug` brings it back."""
        with self._device_lock(bdf):
            self._meet("unplug", bdf)
            self._act(requests.Unplug(bdf))

    def plug(self, bdf: str, like: str | None = None) -> None:
        """Put a card back that was pulled or removed, or a second one `like` another, in the same slot bridge, under the new address."""
        self._meet("plug", bdf)
        with self._lock:
            self._bus.plug(bdf, like)
            if like is not None and like in self._answers:
                self._answers[bdf] = self._answers[like]
            self._changed(requests.Plug(bdf, like))

    def plug_fragment(self, bdf: str, parent: str, directory: object, ioctl: object = None) -> None:
        """Put in a card described as a machine document describes one: the function's directory, below the bridge `parent`."""
        machine.check(directory, {}, "directory")
        if not isinstance(directory, Mapping) or "@" in directory:
            raise ValueError("directory: must be a directory")
        answer = None if ioctl is None else machine.answer(ioctl, "ioctl", bdf)
        self._meet("plug", bdf)
        with self._lock:
            if answer is not None:
                self._answers[bdf] = answer
            self._bus.place(bdf, parent, tree.Directory(directory))
            self._changed(requests.PlugFragment(bdf, parent, dict(directory), ioctl if isinstance(ioctl, dict) else None))

    def bind(self, bdf: str, driver: str) -> None:
        """`echo BDF > /sys/bus/pci/drivers/<driver>/bind`, with its errors."""
        self.write(f"sys/bus/pci/drivers/{driver}/bind", bdf)

    def unbind(self, bdf: str) -> None:
        """Unbind whatever driver a function has; ENODEV for an unknown function, ENOENT without a driver."""
        self.write(f"{pci.DEVICES}/{bdf}/driver/unbind", bdf)

    def modprobe(self, driver: str) -> None:
        """Load a PCI driver; it binds the functions it matches that have none."""
        with self._lock:
            self._bus.drivers.load(driver)
            for function in tuple(self._bus.functions.values()):
                if self._bus.enumerated(function) and self._bus.drivers.matches(function, driver):
                    self._bus.probe(function)
            self._changed(requests.Modprobe(driver))

    def hold_minor(self, bdf: str) -> None:
        """Somebody keeps the card's nodes open: its numbers stay taken when it goes, until `release_minors`."""
        with self._lock:
            minors = self._function(bdf).directory.directory("drm")
            texts = [below.text("dev") or "" for below in minors.entries.values() if isinstance(below, tree.Directory)] if minors else []
            self._minors.held.update(int(text.partition(":")[2]) for text in texts)
            self._changed(requests.HoldMinor(bdf))

    def release_minors(self) -> None:
        """Whoever kept nodes open has closed them."""
        with self._lock:
            self._minors.held.clear()
            self._changed(requests.ReleaseMinors())

    # --- Virtual Functions -----------------------------------------------------------------------------------------------------------

    def hold_vfio(self, bdf: str, gate: Callable[[], None]) -> None:
        """A virtual machine has the function open: who takes it away from vfio, or takes it away, blocks in `gate`."""
        with self._lock:
            function = self._function(bdf)
            if function.driver not in vfio.DRIVERS:
                raise ValueError(f"{bdf} is not bound to vfio: no virtual machine can have it")
            function.held = gate

    def release_vfio(self, bdf: str) -> None:
        """It is closed; who waits in the gate is the gate's owner's to wake."""
        with self._lock:
            self._function(bdf).held = None

    def limit_vfs(self, bdf: str, at_most: int | None) -> None:
        """Let the driver of a PF make no more VFs than this, whatever it is asked for; None ends it."""
        with self._lock:
            self._function(bdf).vfs_at_most = at_most
            self._changed(requests.LimitVfs(bdf, at_most))

    # --- cards in trouble ------------------------------------------------------------------------------------------------------------

    def wedge(self, bdf: str, methods: str = "rebind,bus-reset") -> None:
        """The driver gives the card up; `methods` is what the WEDGED property lists (`none`: it recovered, the event only informs)."""
        with self._lock:
            health.wedge(self._uevents, self._function(bdf), methods)
            self._changed(requests.Wedge(bdf, methods))

    def unwedge(self, bdf: str) -> None:
        """Unbind and bind the driver again."""
        with self._device_lock(bdf), self._lock:
            health.rebind(self._bus, self._function(bdf))
            self._changed(requests.Unwedge(bdf))

    def survivability(self, bdf: str, mode: health.Mode | None) -> None:
        """Survivability mode of an xe card; None ends it."""
        with self._device_lock(bdf), self._lock:
            health.survivability(self._bus, self._uevents, self._function(bdf), mode)
            self._changed(requests.Survivability(bdf, mode))

    def reset_cycle(self, bdf: str) -> None:
        """i915 resets its engines and recovers."""
        with self._looking:
            health.reset_cycle(self._uevents, self._function(bdf))

    def pcie_error(self, bdf: str, *, recovered: bool) -> None:
        """An error on the card's link, and how recovery ended."""
        with self._looking:
            health.pcie_error(self._uevents, self._function(bdf), recovered=recovered)

    def show(self, symptom: requests.Symptom) -> None:
        """Have a card's files show that something is wrong with it, or how it fares."""
        with self._lock:
            symptoms.show(self._bus, self._uevents, self._function(symptom.bdf), symptom)
            self._changed(symptom)

    def display_noise(self, bdf: str) -> None:
        """A monitor comes or goes."""
        with self._looking:
            health.display_noise(self._uevents, self._function(bdf))

    # --- what takes several steps ----------------------------------------------------------------------------------------------------

    def begin(self, number: int, change: requests.Write | requests.Unplug) -> None:
        """Do the first step of a change, as a log tells it: nothing is met, nobody is waited for, and the machine stays as it is then."""
        with self._lock:
            steps = self._steps(change)
            next(steps, None)
            self._begun[number], self._last_begun = (change, steps), max(self._last_begun, number)
            self._changed(requests.Begin(number, change))

    def step(self, number: int) -> None:
        """Do the next step of what was begun under this number. How it fails is told to who began it."""
        with self._lock:
            if number not in self._begun:
                raise ValueError(f"nothing was begun under the number {number}, or it is finished")
            with contextlib.suppress(OSError):
                self._advance(number)

    def finish(self) -> None:
        """Do the rest of everything that was begun: a kernel ends it, whatever became of who asked for it."""
        with self._lock:
            self._finish(*self._begun)

    # --- faults and the whole machine ------------------------------------------------------------------------------------------------

    def fail(self, path: str, operation: str, errno: int, times: int | None = 1) -> None:
        """Make an operation on paths that match the glob answer `errno`; see `faults.OPERATIONS`."""
        with self._looking:
            self.faults.fail(path, operation, errno, times)

    def delay(self, operation: str, seconds: float, path: str = "*") -> None:
        """Make an operation take that long; 0 ends it."""
        with self._looking:
            self.faults.delay(operation, seconds, path)

    def hang(self, path: str, operation: str, gate: Callable[[], None]) -> None:
        """Make an operation block in `gate`."""
        with self._looking:
            self.faults.hang(path, operation, gate)

    def release(self, path: str, operation: str) -> None:
        """No longer block; who waits in the gate is the gate's owner's to wake."""
        with self._looking:
            self.faults.release(path, operation)

    def reboot(self, boot_id: str) -> None:
        """Start again as the document says, under another boot id, without faults; listeners are told that events were lost."""
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot_id):
            raise ValueError(f"{boot_id!r} is not a boot id: it is written as a UUID")
        with self._lock:
            self.boot_id = boot_id
            self.faults.clear()
            self._start()
            self._uevents.overflow("the machine was rebooted")
            self._changed(requests.Reboot(boot_id))

    def state(self) -> dict[str, dict[str, Any]]:
        """For people: every display controller, where it is and how it is."""
        with self._lock:
            return {
                function.bdf: {
                    "device": function.identity[1],
                    "on_bus": self._bus.enumerated(function),
                    "in_slot": function.present,
                    "driver": function.driver,
                    "wedged": function.wedged,
                    "survivability": function.survivability,
                    "drm": sorted(drm_directory.entries) if (drm_directory := function.directory.directory("drm")) else [],
                }
                for function in self._bus.functions.values()
                if (function.directory.text("class") or "").startswith("0x03")
            }

    def _function(self, bdf: str) -> drivers.Function:
        function = self._bus.function(bdf)
        if function is None:
            raise ValueError(f"no PCI function {bdf} is on the bus")
        return function
