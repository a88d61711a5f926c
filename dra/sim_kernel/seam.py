"""The calls of `dra.kernel_tree.KernelTree` on a fake machine: what they answer, what they meet, and whom they wait for."""

from __future__ import annotations

import collections
import contextlib
import errno as errnos
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal

from dra.kernel_tree import MemoryRegion, NodeStat
from dra.sim_kernel import attributes, devices, drivers, drm, faults, machine, pci, requests, tree, uevents

WEDGED_ERRNO: Final[Mapping[str, int]] = {"xe": errnos.ECANCELED, "i915": errnos.EIO}
"""What a wedged device answers to an ioctl, by driver (xe_drm_ioctl; intel_gt_terminally_wedged)."""


class Seam:
    """A machine, and the state that its calls share."""

    def __init__(
        self,
        described: machine.Machine,
        *,
        sleep: Callable[[float], None],
        lock: AbstractContextManager[object],
        looking: AbstractContextManager[object],
        make_lock: Callable[[], AbstractContextManager[object]],
        boot_id: str,
    ) -> None:
        """`sleep` is called for what takes time. `lock`, and those that `make_lock` makes, are context managers that can be entered again
        and again (an RLock); `looking` is entered where nothing is changed, and keeps away who has entered `lock`."""
        self.machine = described
        self.boot_id = boot_id
        self.faults = faults.Faults()
        self._sleep, self._lock, self._looking, self._make_lock = sleep, lock, looking, make_lock
        self._uevents = uevents.Uevents()
        self._recorders: list[Callable[[requests.Change], None]] = []
        self._start()

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
        self._begun: dict[int, tuple[requests.Write | requests.Unplug, Iterator[faults.Trouble]]] = {}
        """By number: changes between two of their steps, and the steps left."""
        self._last_begun = 0
        self._device_locks = collections.defaultdict[str, AbstractContextManager[object]](self._make_lock)

    # --- files -----------------------------------------------------------------------------------------------------------------------

    def read(self, path: str) -> str:
        with self._waiting(self._reads_locked(path)), self._call("read", path) as entry:
            if isinstance(entry, tree.Directory):
                raise tree.error(errnos.EISDIR, path)
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            if not entry.mode & 0o444:
                raise tree.error(errnos.EACCES, path)
            return entry.text

    def write(self, path: str, text: str) -> None:
        with self._call("write", path, lock=self._lock) as entry:
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
        with self._waiting(attributes.locked(where, text)):
            if behaviour[0] != "write":
                self._meet(behaviour[0], *self._subjects(where, text))
            self._act(requests.Write(where, text))

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
        with self._looking:
            return self._tree.lookup(path)[0]

    def exists(self, path: str) -> bool:
        with self._looking:
            return self._tree.find(path) is not None

    def mode(self, path: str) -> int:
        with self._looking:
            entry = self._tree.lookup(path)[1]
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            return entry.mode

    # --- device nodes ----------------------------------------------------------------------------------------------------------------

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
                return (MemoryRegion("device", 1, function.memory_bytes, 0),) if function.memory_bytes else ()
            if answer is None or answer.driver != driver:
                raise tree.error(errnos.EINVAL, path)  # a driver that does not know the query
            if answer.errno is not None:
                raise tree.error(answer.errno, path)
            return answer.regions

    # --- inside ----------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(
        self, operation: str, path: str, *, follow: bool = True, lock: AbstractContextManager[object] | None = None
    ) -> Iterator[tree.Entry]:
        """One call: its troubles with the lock free, then the entry with the lock held. Most meet none: those look once."""
        lock = lock or self._looking
        with lock:
            where, entry = self._tree.lookup(path, follow=follow)
            trouble = self.faults.meet(operation, path, where)
            if trouble == faults.NONE:
                yield entry
                return
        self._suffer(trouble)
        if trouble.errno:
            raise tree.error(trouble.errno, path)
        with lock:
            yield self._tree.lookup(path, follow=follow)[1]

    def _meet(self, operation: str, *paths: str) -> None:
        with self._looking:
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

    def _act(self, change: requests.Write | requests.Unplug) -> None:
        """Do what may take several steps, each with the lock held; between them others act and listen."""
        with self._lock:
            if (bdf := _locked(change)) is not None:
                self._finish(*(number for number, (begun, _) in self._begun.items() if _locked(begun) == bdf))
            machine_now, steps, number = self._bus, self._steps(change), self._last_begun + 1
            trouble = next(steps, None)
            if trouble is None:
                self._changed(change)
            else:
                self._begun[number], self._last_begun = (change, steps), number
                self._changed(requests.Begin(number, change))
        while trouble is not None:
            self._suffer(trouble)
            with self._lock:
                if self._bus is not machine_now:
                    about = change.path if isinstance(change, requests.Write) else change.bdf
                    raise tree.error(errnos.ENODEV, about)  # the machine was booted again meanwhile
                trouble = self._advance(number) if number in self._begun else None  # or somebody did the rest

    def _steps(self, change: requests.Write | requests.Unplug) -> Iterator[faults.Trouble]:
        if isinstance(change, requests.Unplug):
            return self._bus.unplugging(change.bdf)
        where, entry = self._tree.lookup(change.path)  # it may have gone while the call hung
        behaviour = attributes.find(where)
        assert isinstance(entry, tree.File) and behaviour is not None, where
        return iter(behaviour[1](attributes.Write(self._bus, self._uevents, where, entry, change.text)))

    def _advance(self, number: int) -> faults.Trouble | None:
        """The next step of what was begun; None when that was the last."""
        change, steps = self._begun.pop(number)
        try:
            trouble = next(steps, None)
        finally:
            self._changed(requests.Step(number))
        if trouble is not None:
            self._begun[number] = change, steps
        return trouble

    def _finish(self, *numbers: int) -> None:
        """Do the rest of what was begun: a kernel ends it, whatever becomes of who asked for it. How it fails is told to who began it.

        What holds the lock that this thread holds too was begun by another process, which the lock does not keep out: it goes first.
        """
        for number in numbers:
            while number in self._begun:
                with contextlib.suppress(OSError):
                    self._advance(number)

    def _waiting(self, bdf: str | None) -> AbstractContextManager[object]:
        return contextlib.nullcontext() if bdf is None else self._device_lock(bdf)

    @contextlib.contextmanager
    def redoing(self) -> Iterator[None]:
        """What is done inside was done before: it meets nothing, waits for nobody and is told to no recorder. With the lock held."""
        with self._lock:
            self.faults.paused = True
            try:
                yield
            finally:
                self.faults.paused = False

    def _device_lock(self, bdf: str) -> AbstractContextManager[object]:
        """The lock of one function (device_lock): whoever is at it keeps others waiting, not the machine."""
        with self._looking:
            return contextlib.nullcontext() if self.faults.paused else self._device_locks[bdf]

    def _reads_locked(self, path: str) -> str | None:
        """The function whose lock a read takes: one file does, through whichever link it is read."""
        if not path.endswith("/sriov_numvfs"):
            return None
        with self._looking:
            return self._tree.lookup(path)[0].split("/")[-2]

    def _subjects(self, where: str, text: str) -> tuple[str, ...]:
        """Paths an act is known by: the file that is written, and the function it is about."""
        with self._looking:
            named = self._bus.functions.get(text.strip()) or self._bus.functions.get(where.split("/")[-2])
            return (where,) if named is None else (where, named.path, named.bdf)

    def _changed(self, change: requests.Change) -> None:
        if not self.faults.paused:
            for recorder in self._recorders:
                recorder(change)


def _locked(change: requests.Write | requests.Unplug) -> str | None:
    """Address of the function whose lock a change holds from its first step to its last."""
    return attributes.locked(change.path, change.text) if isinstance(change, requests.Write) else change.bdf
