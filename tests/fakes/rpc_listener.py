"""An RpcListener without sockets: files in memory, calls by function."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Collection

import trio

from nursery_apps import rpc


class _Bound:
    def __init__(self, listener: MemoryListener, path: str, routes: Collection[rpc.Route]) -> None:
        self.listener = listener
        self.path = path
        self.routes = {route.path: route for route in routes}

    def reachable(self) -> bool:
        return self.listener.files.get(self.path) is self


class MemoryListener:
    """Also the directories' watch: whoever watches is woken at every change."""

    def __init__(self, *directories: str) -> None:
        self.directories = set(directories)
        self.files: dict[str, object] = {}
        """By path: a `_Bound`, or `"dead"` or `"foreign"` for sockets of others."""
        self.binds = 0
        self.wakes: list[Callable[[], object]] = []

    # --- what the program does --------------------------------------------------------------------------------------------------

    async def serve_unix(
        self,
        routes: Collection[rpc.Route],
        path: str,
        *,
        mode: int = 0o600,
        take_over: bool = False,
        task_status: trio.TaskStatus[rpc.Listening] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if posixpath.dirname(path) not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if self.files.get(path, "dead") != "dead" and not take_over:
            raise OSError(errno.EADDRINUSE, "another process serves this socket", path)
        bound = _Bound(self, path, routes)
        self.binds += 1
        self.put(path, bound)
        try:
            task_status.started(bound)
            await trio.sleep_forever()
        finally:
            if bound.reachable():
                self.remove(path)

    def remove_dead(self, directory: str, is_candidate: Callable[[str], bool]) -> list[str]:
        names = [
            posixpath.basename(path) for path, what in sorted(self.files.items()) if what == "dead" and posixpath.dirname(path) == directory
        ]
        removed = [name for name in names if is_candidate(name)]
        for name in removed:
            self.remove(f"{directory}/{name}")
        return removed

    async def watch(
        self, directory: str, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.wakes.append(wake)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.wakes.remove(wake)

    # --- what the world does ----------------------------------------------------------------------------------------------------

    def put(self, path: str, what: object) -> None:
        self.files[path] = what
        self._changed()

    def remove(self, path: str) -> None:
        del self.files[path]
        self._changed()

    def make_directory(self, directory: str) -> None:
        self.directories.add(directory)
        self._changed()

    def remove_directory(self, directory: str) -> None:
        self.directories.remove(directory)
        self.files = {path: what for path, what in self.files.items() if posixpath.dirname(path) != directory}
        self._changed()

    async def call(self, path: str, method: str, request: bytes) -> bytes:
        bound = self.files[path]
        assert isinstance(bound, _Bound)
        route = bound.routes[method]
        assert isinstance(route, rpc.Unary)
        call = rpc.Call(method, trio.current_time() + 1, {})
        answer: bytes = route.encode(await route.call(route.decode(request), call))
        return answer

    def _changed(self) -> None:
        for wake in self.wakes:
            wake()
