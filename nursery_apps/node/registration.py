"""Being known to the kubelet: the registrar socket, what is said on it, and staying known.

The kubelet calls GetInfo on every socket that appears in its registry directory, checks the answer, and tells its verdict by
NotifyRegistrationStatus. It does so again after each restart and whenever the socket is made anew. A refused plugin is not always asked
again (kubelets up to 1.35 may never), so after a refusal the socket is made anew, with growing delays.
"""

from __future__ import annotations

import enum
import functools
import logging
import math
import posixpath
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec
import trio

from dra import kubelet_sockets
from dra.wire import pluginregistration_pb2 as wire
from nursery_apps import rpc
from nursery_apps.latest import Latest
from nursery_apps.seams import Clock

log = logging.getLogger(__name__)

_PLUGIN_TYPE: Final = "DRAPlugin"
_SERVICE: Final = "pluginregistration.Registration"
_GATE_SIGN: Final = "no handler registered for plugin type"
_GATE_HINT: Final = " (its feature gate DynamicResourceAllocation is off: switch it on in the kubelet's configuration)"

LEFTOVER_SECONDS: Final = 10.0
"""Between looks for siblings that died without removing their sockets: nothing tells of a death, and as long as the socket of one is there,
kubelets from 1.33 on may go on calling it."""
_SHORTEST_RETRY_SECONDS: Final = 1.0
"""The kubelet looks at its registry directory once a second; being faster gains nothing."""


class Standing(enum.StrEnum):
    WAITING = "waiting"
    """The kubelet has not decided yet, or our socket is not there for it to find."""
    REGISTERED = "registered"
    REFUSED = "refused"


class Registration(msgspec.Struct, frozen=True):
    """Where we stand with the kubelet."""

    standing: Standing
    since: float
    """Seconds since the epoch."""
    error: str = ""
    """The kubelet's text when refused; why there is no socket when waiting for that."""


class PluginInfo(msgspec.Struct, frozen=True):
    """What the kubelet is told."""

    driver: str
    endpoint: str
    """Absolute path of the DRA socket, the same on the host."""
    supported_versions: tuple[str, ...]


class DirectoryWatch(Protocol):
    """Tells of names that come and go in a directory."""

    async def watch(
        self, directory: str, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run until cancelled.

        `started` when subscribed: what changes after it is noticed. `wake` is called after a name in the directory came, went or was
        replaced, after the directory itself came or went (it may be missing at first), and whenever changes may have been missed.
        """


async def register(
    listener: rpc.RpcListener,
    watch: DirectoryWatch,
    *,
    socket_path: str,
    info: PluginInfo,
    on_get_info: Callable[[], object],
    state: Latest[Registration],
    delays: Callable[[], Iterator[float]],
    clock: Clock,
    take_over: bool = False,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the driver registered until cancelled. Start it last, when prepare can be served.

    `started` after the first attempt to bind, be it in vain: `state` tells how things stand. A registry directory that is missing is
    waited for, since the kubelet may be installed later; a socket that somebody removes is made anew.

    Args:
        socket_path: the registrar socket. Dead sockets of crashed predecessors are removed beside it and beside the endpoint.
        on_get_info: called each time the kubelet asks, so also after it was upgraded; returns at once.
        delays: a fresh series of seconds between attempts (see `dra.backoff`).
        take_over: replace a socket of that name although another process serves it; only at first, so that of two instances with one name
            the later one stays.
    """
    registrar = _Registrar(info, on_get_info, state, delays, clock)
    directory = posixpath.dirname(socket_path)
    told = False
    replace = take_over
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.watch, directory, registrar.wake)
        nursery.start_soon(_bury_siblings, listener, socket_path, info)
        while True:
            problem = None
            try:
                _remove_leftovers(listener, socket_path, info)
                async with trio.open_nursery() as serving:
                    listening = await serving.start(
                        functools.partial(listener.serve_unix, registrar.routes(), socket_path, take_over=replace)
                    )
                    replace = False
                    registrar.bound()
                    if not told:
                        task_status.started()
                        told = True
                    await registrar.stay(listening)
                    serving.cancel_scope.cancel()
            except* OSError as errors:
                problem = next(_leaves(errors))
            if problem is not None:
                registrar.failed(socket_path, problem)
                if not told:
                    task_status.started()
                    told = True
                await registrar.wait_to_retry()


class _Registrar:
    """Answers the kubelet and decides when the socket has to be made anew."""

    def __init__(
        self,
        info: PluginInfo,
        on_get_info: Callable[[], object],
        state: Latest[Registration],
        delays: Callable[[], Iterator[float]],
        clock: Clock,
    ) -> None:
        self._answer = wire.PluginInfo(
            type=_PLUGIN_TYPE, name=info.driver, endpoint=info.endpoint, supported_versions=info.supported_versions
        )
        self._on_get_info = on_get_info
        self._state = state
        self._delays = delays
        self._waits = delays()
        self._clock = clock
        self._woken = trio.Event()
        self._verdict = Standing.WAITING
        """Of the kubelet about the socket as it is bound now; `state` keeps the last error until there is a new one."""

    def routes(self) -> list[rpc.Route]:
        return [
            rpc.Unary(f"/{_SERVICE}/GetInfo", wire.InfoRequest.FromString, wire.PluginInfo.SerializeToString, self._get_info),
            rpc.Unary(
                f"/{_SERVICE}/NotifyRegistrationStatus",
                wire.RegistrationStatus.FromString,
                wire.RegistrationStatusResponse.SerializeToString,
                self._notify,
            ),
        ]

    def wake(self) -> None:
        self._woken.set()

    def bound(self) -> None:
        self._verdict = Standing.WAITING
        if self._state.value.standing is not Standing.REFUSED:
            self._set(Standing.WAITING)

    def failed(self, socket_path: str, error: OSError) -> None:
        problem = f"no registrar socket: {error.strerror or error} ({error.filename or socket_path})"
        log.error("%s; trying again. Is the kubelet's root directory set right and mounted?", problem)
        self._set(Standing.WAITING, problem)

    async def stay(self, listening: rpc.Listening) -> None:
        """Return when the socket has to be made anew: it is gone, or the kubelet has refused us and did not think better of it."""
        give_up_at = math.inf
        while listening.reachable():
            match self._verdict:
                case Standing.REGISTERED:
                    self._waits = self._delays()
                    give_up_at = math.inf
                case Standing.REFUSED if give_up_at == math.inf:
                    # Newer kubelets ask again by themselves, so the socket stays while we wait.
                    give_up_at = trio.current_time() + next(self._waits)
                case Standing.REFUSED if trio.current_time() >= give_up_at:
                    log.info("making %s anew, so that the kubelet asks again", listening.path)
                    return
            with trio.CancelScope(deadline=give_up_at):
                await self._wake_up()
        log.warning("%s was removed or replaced; making it anew", listening.path)
        self._set(Standing.WAITING, "the registrar socket was removed")

    async def wait_to_retry(self) -> None:
        """For the next delay; less if something changes, but never so little that failing and changing could chase each other."""
        failed_at, seconds = trio.current_time(), next(self._waits)
        await trio.sleep(min(seconds, _SHORTEST_RETRY_SECONDS))
        with trio.CancelScope(deadline=failed_at + seconds):
            await self._wake_up()

    async def _wake_up(self) -> None:
        await self._woken.wait()
        self._woken = trio.Event()

    def _set(self, standing: Standing, error: str = "") -> None:
        self._state.set(Registration(standing, self._clock(), error))

    async def _get_info(self, _request: wire.InfoRequest, _call: rpc.Call) -> wire.PluginInfo:
        log.info("the kubelet asks who we are")
        self._on_get_info()
        return self._answer

    async def _notify(self, status: wire.RegistrationStatus, _call: rpc.Call) -> wire.RegistrationStatusResponse:
        if status.plugin_registered:
            log.info("registered with the kubelet")
            self._verdict = Standing.REGISTERED
            self._set(Standing.REGISTERED)
        else:
            error = " ".join(status.error.split()) or "no reason given"
            log.error("the kubelet refuses the driver: %s%s", error, _GATE_HINT if _GATE_SIGN in error else "")
            self._verdict = Standing.REFUSED
            self._set(Standing.REFUSED, error)
        self.wake()
        return wire.RegistrationStatusResponse()


async def _bury_siblings(listener: rpc.RpcListener, socket_path: str, info: PluginInfo) -> None:
    """A predecessor that was to stop for this instance may be killed long after this one has started."""
    directory, own = posixpath.split(socket_path)
    while True:
        await trio.sleep(LEFTOVER_SECONDS)

        def is_sibling(name: str) -> bool:
            return name != own and kubelet_sockets.is_registrar_of(info.driver, name, own=own)

        try:
            removed = listener.remove_dead(directory, is_sibling)
        except OSError as error:
            log.warning("cannot look for sockets of dead siblings in %s: %s", directory, error.strerror)
            continue
        if removed:
            log.warning("removed sockets of siblings that died: %s", ", ".join(removed))


def _remove_leftovers(listener: rpc.RpcListener, socket_path: str, info: PluginInfo) -> None:
    directory, own = posixpath.split(socket_path)
    removed = listener.remove_dead(directory, lambda name: kubelet_sockets.is_registrar_of(info.driver, name, own=own))
    removed += listener.remove_dead(posixpath.dirname(info.endpoint), kubelet_sockets.is_endpoint)
    if removed:
        log.info("removed sockets of predecessors that crashed: %s", ", ".join(removed))


def _leaves(group: BaseExceptionGroup[OSError]) -> Iterator[OSError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
