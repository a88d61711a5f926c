"""The files whose write does something: one table from path to behaviour.

Every other writable file just keeps what is written. A new behaviour is a row here and a module of its own.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dra import names
from dra.sim_kernel import faults, pci, prelim, sriov, tree, uevents, xe_admin
from dra.sim_kernel.drivers import Function

_FUNCTION: Final = r"sys/devices/(?:[^/]+/)*[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_PRELIM: Final = rf"{_FUNCTION}/drm/card\d+/(prelim_)?iov"
_ADMIN: Final = rf"{_FUNCTION}/sriov_admin/(pf/profile|vf\d+/profile|\.bulk_profile)"
_DRIVER: Final = r"sys/bus/pci/drivers/[^/]+"
OVERRIDE_MAX: Final = 4095
"""driver_override takes less than a page (driver_set_override, drivers/base/driver.c)."""

UEVENT_ACTIONS: Final = frozenset(("add", "remove", "change", "move", "online", "offline", "bind", "unbind"))


class Write(msgspec.Struct, frozen=True):
    """One write: the file's path with links resolved, the file, and what is written."""

    bus: pci.Bus
    events: uevents.Uevents
    path: str
    file: tree.File
    text: str

    @property
    def word(self) -> str:
        """The text as sysfs_streq compares it: without one newline at the end."""
        return self.text.removesuffix("\n")

    @property
    def function(self) -> Function:
        """The function the file belongs to."""
        function = self.bus.at(self.path.rpartition("/")[0])
        if function is None:
            raise tree.error(errno.ENODEV, self.path)
        return function

    def named(self) -> Function:
        """The function whose address is written.

        Raises:
            OSError: ENODEV, there is none on the bus.
        """
        function = self.bus.function(self.word)
        if function is None:
            raise tree.error(errno.ENODEV, self.path)
        return function

    def number(self) -> int:
        """The number written; EINVAL if it is none."""
        value = sriov.unsigned(self.text)
        if value is None:
            raise tree.error(errno.EINVAL, self.path)
        return value


Behaviour = Callable[[Write], Iterable[faults.Trouble]]
"""Acts; the result is gone through with the machine free for others, a step each, and may act further in between."""


def _bind(write: Write) -> Iterable[faults.Trouble]:
    write.bus.bind(write.named(), write.path.split("/")[-2])
    return ()


def _unbind(write: Write) -> Iterable[faults.Trouble]:
    function = write.named()
    if function.driver != write.path.split("/")[-2]:
        raise tree.error(errno.ENODEV, write.path)
    return write.bus.unbinding(function)


def _new_id(write: Write) -> Iterable[faults.Trouble]:
    driver, identity = write.path.split("/")[-2], _identity(write)
    known = write.bus.drivers.dynamic.setdefault(driver, set())
    if identity in known:
        raise tree.error(errno.EEXIST, write.path)
    known.add(identity)
    for function in tuple(write.bus.functions.values()):
        if write.bus.enumerated(function) and function.identity == identity:
            write.bus.probe(function)
    return ()


def _remove_id(write: Write) -> Iterable[faults.Trouble]:
    known = write.bus.drivers.dynamic.get(write.path.split("/")[-2], set())
    identity = _identity(write)
    if identity not in known:
        raise tree.error(errno.ENODEV, write.path)
    known.remove(identity)
    return ()


def _identity(write: Write) -> tuple[str, str]:
    """`8086 e211 ...` -> ("0x8086", "0xe211")."""
    fields = write.word.split()
    if len(fields) < 2 or not all(re.fullmatch(r"[0-9a-fA-F]{1,8}", field) for field in fields):
        raise tree.error(errno.EINVAL, write.path)
    vendor, device = (int(field, 16) for field in fields[:2])
    return f"0x{vendor:04x}", f"0x{device:04x}"


def _drivers_probe(write: Write) -> Iterable[faults.Trouble]:
    write.bus.probe(write.named())
    return ()


def _rescan(write: Write) -> Iterable[faults.Trouble]:
    if write.number():
        write.bus.rescan()
    return ()


def _remove(write: Write) -> Iterable[faults.Trouble]:
    return write.bus.detaching(write.function) if write.number() else ()


def _reset(write: Write) -> Iterable[faults.Trouble]:
    # No event, and a wedged driver stays wedged: only binding anew clears it.
    if write.number() != 1:
        raise tree.error(errno.EINVAL, write.path)
    return ()


def _driver_override(write: Write) -> Iterable[faults.Trouble]:
    if len(write.text) >= OVERRIDE_MAX:
        raise tree.error(errno.EINVAL, write.path)
    name = write.text.partition("\n")[0]
    write.file.text = f"{name or '(null)'}\n"
    return ()


def _sriov_numvfs(write: Write) -> Iterable[faults.Trouble]:
    return sriov.write_numvfs(write.bus, write.function, write.text)


def _pf(write: Write) -> Function:
    """The PF whose provisioning a file belongs to."""
    bdfs = [part for part in write.path.split("/") if names.is_bdf(part)]
    function = write.bus.function(bdfs[-1])
    if function is None:
        raise tree.error(errno.ENODEV, write.path)
    return function


def _prelim_attribute(write: Write) -> Iterable[faults.Trouble]:
    write.file.text = prelim.write_attribute(_pf(write), write.path, write.number())
    return ()


def _prelim_auto(write: Write) -> Iterable[faults.Trouble]:
    value = sriov.boolean(write.text)
    if value is None:
        raise tree.error(errno.EINVAL, write.path)
    write.file.text = prelim.write_auto(_pf(write), write.path, value)
    return ()


def _xe_number(write: Write) -> Iterable[faults.Trouble]:
    pf = _pf(write)
    xe_admin.write_number(pf, write.path, write.number(), write.bus.memory.get(pf.bdf, 0))
    return ()


def _xe_priority(write: Write) -> Iterable[faults.Trouble]:
    xe_admin.write_priority(_pf(write), write.path, write.word)
    return ()


def _xe_stop(write: Write) -> Iterable[faults.Trouble]:
    if sriov.boolean(write.text) is None:
        raise tree.error(errno.EINVAL, write.path)
    return ()


def _sriov_drivers_autoprobe(write: Write) -> Iterable[faults.Trouble]:
    sriov.write_autoprobe(write.function, write.text)
    return ()


def _uevent(write: Write) -> Iterable[faults.Trouble]:
    """A synthetic event (kobject_synth_uevent): the action, and with an UUID and KEY=VALUE words the properties SYNTH_*."""
    words = write.word.split(" ")
    if words[0] not in UEVENT_ACTIONS:
        raise tree.error(errno.EINVAL, write.path)
    path = write.path.rpartition("/")[0]
    device = write.bus.tree.directory(path)
    subsystem = device.entries.get("subsystem") if device else None
    if device is None or not isinstance(subsystem, tree.Link):
        return ()  # not a device: the kernel has nobody to tell either
    extra = {"SYNTH_UUID": words[1] if len(words) > 1 else "0"}
    extra |= {f"SYNTH_ARG_{key}": value for key, _, value in (word.partition("=") for word in words[2:])}
    name = tree.absolute(write.path, subsystem.target).rpartition("/")[2]
    write.events.emit(words[0], name, path, uevents.properties(device) | extra)
    return ()


TABLE: Final[tuple[tuple[re.Pattern[str], str, Behaviour], ...]] = (
    (re.compile(rf"{_DRIVER}/bind"), "bind", _bind),
    (re.compile(rf"{_DRIVER}/unbind"), "unbind", _unbind),
    (re.compile(rf"{_DRIVER}/new_id"), "write", _new_id),
    (re.compile(rf"{_DRIVER}/remove_id"), "write", _remove_id),
    (re.compile(r"sys/bus/pci/drivers_probe"), "bind", _drivers_probe),
    (re.compile(rf"sys/bus/pci/rescan|{_FUNCTION}/rescan"), "rescan", _rescan),
    (re.compile(rf"{_FUNCTION}/remove"), "remove", _remove),
    (re.compile(rf"{_FUNCTION}/reset"), "reset", _reset),
    (re.compile(rf"{_FUNCTION}/driver_override"), "write", _driver_override),
    (re.compile(rf"{_FUNCTION}/sriov_numvfs"), "sriov", _sriov_numvfs),
    (re.compile(rf"{_FUNCTION}/sriov_drivers_autoprobe"), "write", _sriov_drivers_autoprobe),
    (re.compile(rf"{_PRELIM}/vf\d+/gt\d*/(\w+_quota|exec_quantum_ms|preempt_timeout_us|threshold/\w+)"), "write", _prelim_attribute),
    (re.compile(rf"{_PRELIM}/pf/auto_provisioning"), "write", _prelim_auto),
    (re.compile(rf"{_ADMIN}/({'|'.join(xe_admin.NUMBERS)})"), "write", _xe_number),
    (re.compile(rf"{_ADMIN}/sched_priority"), "write", _xe_priority),
    (re.compile(rf"{_FUNCTION}/sriov_admin/vf\d+/stop"), "write", _xe_stop),
    (re.compile(r"sys/devices/.+/uevent"), "write", _uevent),
)
"""Path with links resolved, the operation it counts as for `faults`, what it does. The first row that fits is taken."""


def find(path: str) -> tuple[str, Behaviour] | None:
    """The operation and behaviour of a file; None for one that only keeps its text."""
    return next(((operation, behaviour) for pattern, operation, behaviour in TABLE if pattern.fullmatch(path)), None)


def locked(path: str, text: str) -> str | None:
    """Address of the function whose device lock a write takes (device_lock of drivers/base), None for the many that take none."""
    directory, _, name = path.rpartition("/")
    if path.startswith("sys/bus/pci/") and name in ("bind", "unbind", "drivers_probe"):
        return text.strip()
    return directory.rpartition("/")[2] if name in ("sriov_numvfs", "remove", "reset") else None
