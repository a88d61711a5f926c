"""The kubelet's plugin watcher: finds sockets in the registry directory, asks who they are, and keeps the instances it accepted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from tools.simcluster import plugin_calls, plugin_versions
from tools.simcluster.plugin_calls import CallFailed, Connection

RECONCILE_SECONDS: Final = 1.0
WATCH_AGAIN_SECONDS: Final = 5.0
FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 122.0
"""Back-off of a socket that fails, as the plugin manager of the kubelet has it."""


class Instance(msgspec.Struct, eq=False):
    """A registered plugin process."""

    driver: str
    socket: str
    """The registrar's."""
    endpoint: str
    announced: list[str]
    service: str
    number: tuple[int, ...]
    """What ≤1.31 compares instances by."""
    connection: Connection
    """Not used by 1.28, which has one for each call."""
    knows_only_single: bool = False
    """It has `v1alpha2.Node` alone, as a kubelet up to 1.30 found out."""

    @property
    def connected(self) -> bool:
        return self.connection.state == "READY"


class _Socket(msgspec.Struct):
    identity: tuple[int, int]
    """Inode and time of creation: a socket made anew is another one."""
    tries: int = 0
    retry_at: float = 0.0
    stuck: bool = False
    """Refused by the handler before 1.36: never asked again until it is made anew."""
    instance: Instance | None = None


class Registrar:
    """`run` is the task; `on_change(driver)` is called when an instance comes, goes, connects or is lost."""

    def __init__(
        self,
        directory: str,
        minor: int,
        *,
        on_change: Callable[[str], None],
        log: Callable[[str], None],
        reconcile_seconds: float = RECONCILE_SECONDS,
    ) -> None:
        self.directory, self._minor, self._reconcile_seconds = directory, minor, reconcile_seconds
        self._on_change, self._log = on_change, log
        self._sockets: dict[str, _Socket] = {}
        self.refusals: list[tuple[str, str]] = []
        """(socket, what was said to it), for tests."""

    def instances(self, driver: str = "") -> list[Instance]:
        """Registered ones, oldest first."""
        found = [entry.instance for entry in self._sockets.values() if entry.instance is not None]
        return [instance for instance in found if not driver or instance.driver == driver]

    def best(self, driver: str) -> Instance | None:
        """Whom to call: the newest, from 1.34 the newest that is connected."""
        found = self.instances(driver)
        connected = [instance for instance in found if instance.connected] if self._minor >= 34 else []
        return next(reversed(connected or found), None)

    async def run(self) -> None:
        """Looks once a second, as the kubelet's reconciler does."""
        os.makedirs(self.directory, exist_ok=True)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._reconcile(nursery)
                    await trio.sleep(self._reconcile_seconds)
        finally:
            for entry in self._sockets.values():
                if entry.instance is not None:
                    entry.instance.connection.close()
            self._sockets.clear()

    def _reconcile(self, nursery: trio.Nursery) -> None:
        present = _sockets(self.directory)
        for path, entry in list(self._sockets.items()):
            if present.get(path) != entry.identity:
                del self._sockets[path]
                self._deregister(entry, path)
        for path, identity in present.items():
            entry = self._sockets.setdefault(path, _Socket(identity))
            if entry.instance is None and not entry.stuck and trio.current_time() >= entry.retry_at:
                # Not again while it is being asked.
                entry.retry_at = trio.current_time() + plugin_calls.DIAL_SECONDS + plugin_calls.INFO_SECONDS + plugin_calls.NOTIFY_SECONDS
                nursery.start_soon(self._register, path, entry, nursery)

    def _deregister(self, entry: _Socket, path: str) -> None:
        if entry.instance is None:
            return
        entry.instance.connection.close()
        self._log(f"plugin {entry.instance.driver} at {path} deregistered")
        self._on_change(entry.instance.driver)

    async def _watch_resources(self, instance: Instance) -> None:
        """1.30 asks every plugin for a stream of its devices until it says that it has none. Nothing here reads one."""
        while any(instance is other for other in self.instances()):
            try:
                await plugin_calls.watch_resources(instance.connection)
            except CallFailed as failed:
                if failed.code == "UNIMPLEMENTED":
                    return
                self._log(f"plugin {instance.driver}, NodeListAndWatchResources: {failed}")
            else:
                return
            await trio.sleep(WATCH_AGAIN_SECONDS)

    async def _register(self, path: str, entry: _Socket, nursery: trio.Nursery) -> None:
        connection = Connection(path)
        try:
            try:
                info = await plugin_calls.info(connection)
            except CallFailed as failed:
                self._log(f"cannot ask {path} who it is: {failed}")
                self._again(entry)
                return
            error, is_final = self._fault(info.type, info.name, info.endpoint or path, list(info.supported_versions))
            if not error:
                self._accept(path, entry, info.name, info.endpoint or path, list(info.supported_versions))
                if self._minor == 30 and entry.instance is not None:
                    nursery.start_soon(self._watch_resources, entry.instance)
            else:
                self.refusals.append((path, error))
                self._log(f"plugin {info.name} at {path} is refused: {error}")
                if is_final and self._minor < 36:
                    entry.stuck = True
                else:
                    self._again(entry)
            try:
                await plugin_calls.notify(connection, error)
            except CallFailed as failed:
                self._log(f"cannot tell {path}: {failed}")
                if not error and self._minor >= 36:
                    self._deregister(entry, path)
                    entry.instance = None
                    self._again(entry)
        finally:
            connection.close()

    def _fault(self, kind: str, driver: str, endpoint: str, announced: list[str]) -> tuple[str, bool]:
        """Why the plugin is refused, and whether by the handler rather than by validation."""
        if kind != "DRAPlugin":
            return f"no handler registered for plugin type: {kind} at socket", False
        try:
            plugin_versions.service(self._minor, announced)
            number = plugin_versions.highest(announced) if self._minor <= 31 else ()
        except plugin_versions.Unusable as unusable:
            return str(unusable), False
        others = self.instances(driver)
        if self._minor <= 31 and any(number <= other.number for other in others):
            return "another plugin instance is already registered and has the same or a higher version", False
        if self._minor >= 33 and any(other.endpoint == endpoint for other in others):
            return f"endpoint {endpoint} already registered for DRA driver plugin {driver}", True
        return "", False

    def _accept(self, path: str, entry: _Socket, driver: str, endpoint: str, announced: list[str]) -> None:
        service = plugin_versions.service(self._minor, announced)
        number = plugin_versions.highest(announced) if self._minor <= 31 else ()

        def told(_state: str) -> None:
            self._on_change(driver)

        if self._minor <= 32:
            for other in self._sockets.values():
                if other.instance is not None and other.instance.driver == driver:
                    other.instance.connection.close()
                    other.instance = None
                    other.stuck = True
        # Before 1.34 it connects with the first call, and nobody looks at how it is.
        connection = Connection(endpoint, authority="localhost", on_state=told) if self._minor >= 34 else Connection(endpoint)
        if self._sockets.get(path) is not entry:
            connection.close()
            return
        entry.instance = Instance(driver, path, endpoint, announced, service, number, connection)
        entry.tries = 0
        # The newest is the last.
        self._sockets[path] = self._sockets.pop(path)
        self._log(f"plugin {driver} registered: {endpoint} speaks {service}")
        self._on_change(driver)

    def _again(self, entry: _Socket) -> None:
        entry.retry_at = trio.current_time() + min(FIRST_RETRY_SECONDS * 2**entry.tries, RETRY_AT_MOST_SECONDS)
        entry.tries += 1


def _sockets(directory: str) -> dict[str, tuple[int, int]]:
    """Unix sockets in and below the directory, hidden names left out: path -> identity."""
    found: dict[str, tuple[int, int]] = {}
    for root, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(root, name)
            if name.startswith("."):
                continue
            try:
                about = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISSOCK(about.st_mode):
                # Not the change time: a chmod after bind makes no other socket of it.
                found[path] = (about.st_ino, about.st_mtime_ns)
    return found
