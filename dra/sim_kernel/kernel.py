"""`SimKernel`: a fake machine behind the seam `dra.kernel_tree.KernelTree`, and what people and tests may do to it."""

from __future__ import annotations

import contextlib
import errno as errnos
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Self

from dra.kernel_tree import MemoryRegion, NodeStat
from dra.sim_kernel import attributes, devices, drivers, drm, faults, health, machine, pci, requests, tree, uevents

FIRST_BOOT = "00000000-0000-4000-8000-000000000001"
"""boot_id of a machine nobody gave another."""

WEDGED_ERRNO: Mapping[str, int] = {"xe": errnos.ECANCELED, "i915": errnos.EIO}
"""What a wedged device answers to an ioctl, by driver (xe_drm_ioctl; intel_gt_terminally_wedged)."""


class SimKernel:
    """One fake machine in memory that acts as the kernel would.

    Safe to call from several threads if `lock` is a real one. Delays and hangs happen in the caller's thread, with the lock free.
    The calls beyond the seam raise ValueError for what cannot be done to this machine.
    """

    def __init__(
        self,
        described: machine.Machine,
        *,
        sleep: Callable[[float], None],
        lock: AbstractContextManager[object],
        make_lock: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        boot_id: str,
    ) -> None:
        """`sleep` is called for what takes time; `lock`, and those that `make_lock` makes, are context managers that can be entered again
        and again (an RLock)."""
        self.machine = described
        self.boot_id = boot_id
        self.faults = faults.Faults()
        self._sleep, self._lock, self._make_lock = sleep, lock, make_lock
        self._device_locks: dict[str, AbstractContextManager[object]] = {}
        self._uevents = uevents.Uevents()
        self._recorders: list[Callable[[requests.Change], None]] = []
        self._start()

    @classmethod
    def load(
        cls,
        document: object,
        name: str | None = None,
        *,
        sleep: Callable[[float], None] = lambda _seconds: None,
        lock: AbstractContextManager[object] | None = None,
        make_lock: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        boot_id: str = FIRST_BOOT,
    ) -> Self:
        """Start a machine of a document (None: its only one); without `sleep` nothing takes time, without locks one thread may call.

        Raises:
            ValueError: the document is malformed; the message names the place in it.
        """
        described = machine.read(document, name)
        return cls(described, sleep=sleep, lock=lock or contextlib.nullcontext(), make_lock=make_lock, boot_id=boot_id)

    def _start(self) -> None:
        self._tree = tree.Tree(tree.Directory(self.machine.tree, self.machine.shared))
        self._tree.put("proc/sys/kernel/random/boot_id", tree.File(f"{self.boot_id}\n"))
        release = self._tree.find("proc/sys/kernel/osrelease")
        self._minors = drm.Minors(self._tree)
        core = devices.DriverCore(self._tree, self._uevents)
        text = release.text if isinstance(release, tree.File) else ""
        known = drivers.Drivers(self._tree, core, self._uevents, minors=self._minors, release=text, troubles=self.faults)
        self._answers = dict(self.machine.answers)
        memory = {
            bdf: sum(region.size_bytes for region in answer.regions if region.kind == "device") for bdf, answer in self._answers.items()
        }
        self._bus = pci.Bus(self._tree, self._uevents, known, memory)

    # --- the seam --------------------------------------------------------------------------------------------------------------------

    def read(self, path: str) -> str:
        with self._device_lock(path, "sriov_numvfs"), self._call("read", path) as entry:
            if isinstance(entry, tree.Directory):
                raise tree.error(errnos.EISDIR, path)
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            if not entry.mode & 0o444:
                raise tree.error(errnos.EACCES, path)
            return entry.text

    def write(self, path: str, text: str) -> None:
        with self._call("write", path) as entry:
            if isinstance(entry, tree.Directory):
                raise tree.error(errnos.EISDIR, path)
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            if not entry.mode & 0o222:
                raise tree.error(errnos.EACCES, path)
            if not text:
                return  # an empty write reaches no attribute
            where = self._tree.lookup(path)[0]
            behaviour = attributes.find(where)
            if behaviour is None:
                entry.text = text if text.endswith("\n") else f"{text}\n"
                self._changed(requests.Write(path, text))
                return
        operation, act = behaviour
        with self._device_lock(where, "sriov_numvfs", "bind", "unbind", text=text):
            if operation != "write":
                self._meet(operation, *self._subjects(where, text))
            with self._lock:
                entry = self._tree.lookup(where)[1]  # it may have gone while the call hung
                assert isinstance(entry, tree.File), where
                steps = iter(act(attributes.Write(self._bus, self._uevents, where, entry, text)))
                trouble = next(steps, None)
                # Before the rest of it: a kernel ends what it has begun, whatever becomes of the caller.
                self._changed(requests.Write(path, text))
            while trouble is not None:
                self._suffer(trouble)
                with self._lock:
                    trouble = next(steps, None)

    def list(self, path: str) -> list[str]:
        with self._call("list", path) as entry:
            if not isinstance(entry, tree.Directory):
                raise tree.error(errnos.ENOTDIR, path)
            return sorted(entry.entries)

    def link(self, path: str) -> str:
        with self._call("link", path, follow=False) as entry:
            if not isinstance(entry, tree.Link):
                raise tree.error(errnos.EINVAL, path)
            return entry.target

    def resolve(self, path: str) -> str:
        with self._lock:
            return self._tree.lookup(path)[0]

    def exists(self, path: str) -> bool:
        with self._lock:
            return self._tree.find(path) is not None

    def node(self, path: str) -> NodeStat:
        with self._call("node", path) as entry:
            if not isinstance(entry, tree.Node):
                raise tree.error(errnos.ENODEV, path)
            number = (entry.major, entry.minor)
            if entry.major == drm.MAJOR and self.machine.open_as is not None:
                number = self.machine.open_as
            return NodeStat(*number, entry.mode, 0, entry.gid)

    def memory_regions(self, path: str, driver: Literal["i915", "xe"]) -> Sequence[MemoryRegion]:
        with self._call("query", path) as node:
            if not isinstance(node, tree.Node) or node.major != drm.MAJOR:
                raise tree.error(errnos.ENOTTY, path)
            try:
                device = self._tree.lookup(f"sys/dev/char/{node.major}:{node.minor}/device")[0]
            except FileNotFoundError:
                raise tree.error(errnos.ENODEV, path) from None
            function = self._bus.at(device)
            if function is None or function.driver != driver:
                raise tree.error(errnos.ENOTTY, path)
            if function.wedged:
                raise tree.error(WEDGED_ERRNO[driver], path)
            answer = self._answers.get(function.bdf)
            if function.memory_bytes is not None and driver == "xe":
                return (MemoryRegion("device", 1, function.memory_bytes),) if function.memory_bytes else ()
            if answer is None or answer.driver != driver:
                raise tree.error(errnos.EINVAL, path)  # a driver that does not know the query
            if answer.errno is not None:
                raise tree.error(answer.errno, path)
            return answer.regions

    # --- listening -------------------------------------------------------------------------------------------------------------------

    def subscribe(self, on_event: uevents.Listener, on_overflow: Callable[[str], None] = lambda _why: None) -> Callable[[], None]:
        """Hear every uevent from now on; the result ends it. Called in whichever thread made the event, under the lock: be quick."""
        with self._lock:
            leave = self._uevents.subscribe(on_event, on_overflow)

        def locked_leave() -> None:
            with self._lock:
                leave()

        return locked_leave

    def overflow(self, why: str = "the receive buffer was full") -> None:
        """Events were lost (ENOBUFS)."""
        with self._lock:
            self._uevents.overflow(why)

    def record(self, recorder: Callable[[requests.Change], None]) -> None:
        """Have every change of the machine told from now on, by whomever it was made, in order and under the lock."""
        with self._lock:
            self._recorders.append(recorder)

    # --- cards that come and go ------------------------------------------------------------------------------------------------------

    def unplug(self, bdf: str) -> None:
        """Pull a card out; only `plug` brings it back."""
        self._meet("unplug", bdf)
        with self._lock:
            self._bus.unplug(bdf)
            self._changed(requests.Unplug(bdf))

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

    # --- cards in trouble ------------------------------------------------------------------------------------------------------------

    def wedge(self, bdf: str, methods: str = "rebind,bus-reset") -> None:
        """The driver gives the card up; `methods` is what the WEDGED property lists (`none`: it recovered, the event only informs)."""
        with self._lock:
            health.wedge(self._uevents, self._function(bdf), methods)
            self._changed(requests.Wedge(bdf, methods))

    def unwedge(self, bdf: str) -> None:
        """Unbind and bind the driver again."""
        with self._lock:
            health.rebind(self._bus, self._function(bdf))
            self._changed(requests.Unwedge(bdf))

    def survivability(self, bdf: str, mode: health.Mode | None) -> None:
        """Survivability mode of an xe card; None ends it."""
        with self._lock:
            health.survivability(self._bus, self._uevents, self._function(bdf), mode)
            self._changed(requests.Survivability(bdf, mode))

    def reset_cycle(self, bdf: str) -> None:
        """i915 resets its engines and recovers."""
        with self._lock:
            health.reset_cycle(self._uevents, self._function(bdf))

    def pcie_error(self, bdf: str, *, recovered: bool) -> None:
        """An error on the card's link, and how recovery ended."""
        with self._lock:
            health.pcie_error(self._uevents, self._function(bdf), recovered=recovered)

    def display_noise(self, bdf: str) -> None:
        """A monitor comes or goes."""
        with self._lock:
            health.display_noise(self._uevents, self._function(bdf))

    # --- faults and the whole machine ------------------------------------------------------------------------------------------------

    def fail(self, path: str, operation: str, errno: int, times: int | None = 1) -> None:
        """Make an operation on paths that match the glob answer `errno`; see `faults.OPERATIONS`."""
        with self._lock:
            self.faults.fail(path, operation, errno, times)

    def delay(self, operation: str, seconds: float, path: str = "*") -> None:
        """Make an operation take that long; 0 ends it."""
        with self._lock:
            self.faults.delay(operation, seconds, path)

    def hang(self, path: str, operation: str, gate: Callable[[], None]) -> None:
        """Make an operation block in `gate`."""
        with self._lock:
            self.faults.hang(path, operation, gate)

    def release(self, path: str, operation: str) -> None:
        """No longer block; who waits in the gate is the gate's owner's to wake."""
        with self._lock:
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

    # --- inside ----------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self, operation: str, path: str, *, follow: bool = True) -> Iterator[tree.Entry]:
        """One call of the seam: its troubles with the lock free, then the entry with the lock held."""
        with self._lock:
            where, _ = self._tree.lookup(path, follow=follow)
        self._meet(operation, path, where)
        with self._lock:
            yield self._tree.lookup(path, follow=follow)[1]

    def _meet(self, operation: str, *paths: str) -> None:
        with self._lock:
            trouble = self.faults.meet(operation, *paths)
        self._suffer(trouble)
        if trouble.errno:
            raise tree.error(trouble.errno, paths[0])

    def _suffer(self, trouble: faults.Trouble) -> None:
        """Seconds and gates, in the caller's thread with the machine free."""
        if trouble.seconds:
            self._sleep(trouble.seconds)
        for gate in trouble.gates:
            gate()

    def _device_lock(self, path: str, *names: str, text: str = "") -> AbstractContextManager[object]:
        """The lock of the function that a file is about (device_lock), for files with these names; of others nobody waits for it."""
        directory, _, name = path.rpartition("/")
        if name not in names:
            return contextlib.nullcontext()
        with self._lock:
            bdf = text.strip() if name in ("bind", "unbind") else directory.rpartition("/")[2]
            return self._device_locks.setdefault(bdf, self._make_lock())

    def _subjects(self, where: str, text: str) -> tuple[str, ...]:
        """Paths an act is known by: the file that is written, and the function it is about."""
        with self._lock:
            named = self._bus.functions.get(text.strip()) or self._bus.functions.get(where.split("/")[-2])
            return (where,) if named is None else (where, named.path, named.bdf)

    def _changed(self, change: requests.Change) -> None:
        for recorder in self._recorders:
            recorder(change)

    def _function(self, bdf: str) -> drivers.Function:
        function = self._bus.function(bdf)
        if function is None:
            raise ValueError(f"no PCI function {bdf} is on the bus")
        return function
