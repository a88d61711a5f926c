"""A fake machine that outlives its process, and that is one although several processes have it.

A real kernel keeps its state when the daemon dies, and a daemon and its successor (a rolling update with a surge) act on the same one. So
the fake one is kept in `simulated-machine.log`: whatever changes it is appended, each process does what the others appended before it
changes anything itself, and a new one does everything again from the first line, until the host reboots.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

from dra.settings import SettingsInvalid
from dra.sim_kernel import control, requests
from dra.sim_kernel.kernel import SimKernel

LOG_NAME: Final = "simulated-machine.log"


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """First line of the log."""

    host_boot_id: str
    boot_id: str
    machine: str


class MachineLog:
    """The log, and as a context manager the lock of the machine in it: whoever holds it is alone among the threads of all processes and
    has done what the others did."""

    def __init__(self, directory: str) -> None:
        """
        Raises:
            OSError: the log cannot be opened.
        """
        self.path = Path(directory) / LOG_NAME
        self._threads = threading.RLock()
        self._depth = 0
        self._file = self._open()
        self._kernel: SimKernel | None = None
        self._done_bytes = self._done_lines = 0
        """How much of the log this process's machine has been through."""

    def load(
        self,
        document: object,
        name: str | None,
        *,
        host_boot_id: str,
        fresh_boot_id: Callable[[], str],
        sleep: Callable[[float], None],
    ) -> SimKernel:
        """Start the machine of a document, or go on with it if it was started since the host booted. To be called once.

        Blocking: for use before the event loop has anything to do, or in a thread.

        Raises:
            ValueError: the document is malformed.
            SettingsInvalid: the log does not fit it any more; the message says what to do.
            OSError: the log cannot be read or written.
        """
        kernel = SimKernel.load(document, name, sleep=sleep, lock=self, looking=self._threads, make_lock=threading.RLock)
        header = self._open_for(host_boot_id, kernel.machine.name, fresh_boot_id)
        with self:
            kernel.reboot(header.boot_id)
            self._kernel = kernel
            self._catch_up()
            kernel.record(self._append)
            kernel.finish()
        return kernel

    def look(self) -> None:
        """Do what other processes did to the machine, so that it is seen and its events are heard here too; to be called when `path` was
        written to. Reads do not do it: a system call for each would cost more than they do.

        Raises:
            SettingsInvalid: what was written cannot be done; entering the lock raises the same.
        """
        if self._behind():  # most changes are this process's own
            with self:
                pass

    # --- the lock --------------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        # No deadline: it is held for one step of the machine. A process that is stopped with it in hand stops the others, as a processor
        # that holds a spinlock does.
        self._threads.acquire()
        self._depth += 1
        try:
            if self._depth == 1:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                if self._kernel is not None and self._behind():
                    self._catch_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._threads.release()

    # --- the file --------------------------------------------------------------------------------------------------------------------

    def _open(self) -> int:
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # The machine lives as long as whoever looks at it: nobody is there to close its log.
        self._close = weakref.finalize(self, os.close, file)
        return file

    def _open_for(self, host_boot_id: str, machine: str, fresh_boot_id: Callable[[], str]) -> _Header:
        """Come to the log of this boot and machine, and past its header; another one is put in the place of what does not fit. Who still
        acts on the machine of that goes on alone, in a file without a name."""
        while True:
            with self:
                if os.path.samestat(os.fstat(self._file), self.path.stat()):  # else another process has begun one
                    header = self._header()
                    if header is not None and (header.host_boot_id, header.machine) == (host_boot_id, machine):
                        return header
                    temporary = self.path.with_name(f".{LOG_NAME}.new")
                    temporary.write_bytes(msgspec.json.encode(_Header(host_boot_id, fresh_boot_id(), machine)) + b"\n")
                    temporary.replace(self.path)
            self._close()
            self._file = self._open()

    def _header(self) -> _Header | None:
        line, newline, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        if not newline:
            return None  # not begun, or cut off in the writing
        self._done_bytes, self._done_lines = len(line) + 1, 1
        try:
            return msgspec.json.decode(line, type=_Header)
        except msgspec.MsgspecError as error:
            raise SettingsInvalid(f"{self.path}:1: not the log of a simulated machine ({error}); remove the file") from error

    def _behind(self) -> bool:
        return os.fstat(self._file).st_size != self._done_bytes

    def _catch_up(self) -> None:
        assert self._kernel is not None
        text = os.pread(self._file, os.fstat(self._file).st_size - self._done_bytes, self._done_bytes)
        *lines, rest = text.split(b"\n")
        if rest:  # nobody writes while we hold the lock: whoever began this line died over it
            os.ftruncate(self._file, self._done_bytes + len(text) - len(rest))
        with self._kernel.redoing():
            for line in lines:
                self._done_bytes, self._done_lines = self._done_bytes + len(line) + 1, self._done_lines + 1
                try:
                    control.perform(self._kernel, requests.parse(msgspec.json.decode(line)), gate=lambda _path, _operation: lambda: None)
                except (ValueError, OSError) as error:
                    where = f"{self.path}:{self._done_lines}"
                    raise SettingsInvalid(
                        f"{where}: the machine cannot be brought back to where it was ({error}); remove the file"
                    ) from error

    def _append(self, change: requests.Change) -> None:
        # Not synced: the log has to survive this process, and a power cut ends the simulated boot as well.
        line = msgspec.json.encode(change) + b"\n"
        os.write(self._file, line)
        self._done_bytes, self._done_lines = self._done_bytes + len(line), self._done_lines + 1
