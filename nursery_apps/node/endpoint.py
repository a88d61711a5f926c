"""The DRA socket: served for as long as the program wants calls, under a name that leads to it.

The kubelet dials the path it was told at registration, again after each of its restarts. A second instance that was started by mistake, or
a cleaned directory, takes the name away; then the socket is made anew.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Collection, Iterator
from functools import partial

import trio

from nursery_apps import rpc
from nursery_apps.node.registration import DirectoryWatch

log = logging.getLogger(__name__)


async def serve(
    listener: rpc.RpcListener,
    watch: DirectoryWatch,
    routes: Collection[rpc.Route],
    path: str,
    *,
    delays: Callable[[], Iterator[float]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started` when the kubelet can call.

    A predecessor that still serves the name is replaced once, at start: it may be stuck. Later the name is left to whoever has it.

    Raises:
        OSError: the socket cannot be bound at start.
        ValueError: the path is too long for a socket.
    """
    woken = trio.Event()

    def wake() -> None:
        woken.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch.watch, posixpath.dirname(path), wake)
        first, waits = True, delays()
        while True:
            try:
                async with trio.open_nursery() as serving:
                    listening = await serving.start(partial(listener.serve_unix, routes, path, take_over=first))
                    if first:
                        first = False
                        task_status.started()
                    waits = delays()
                    while listening.reachable():
                        await woken.wait()
                        woken = trio.Event()
                    log.warning("%s was removed or replaced; making it anew", path)
                    serving.cancel_scope.cancel()
            except* OSError as errors:
                if first:
                    raise
                log.error("cannot make %s anew: %s", path, "; ".join(str(error) for error in errors.exceptions))
                with trio.move_on_after(next(waits)):
                    await woken.wait()
                woken = trio.Event()
