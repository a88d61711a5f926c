"""The node plugin's whole task tree on one screen. `__main__` composes the parts, this runs them; nothing here decides anything.

Stop order is nesting: intake first, then the claims and then the cards with one grace, then the supporters. A task that fails takes
everything down; the next life computes what is left from the facts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import trio

from dra import backoff
from dra.kubelet_sockets import KubeletSockets
from nursery_apps.node import endpoint, registration
from nursery_apps.node.parts import Parts

log = logging.getLogger(__name__)


async def run(parts: Parts, *, stop: trio.Event, task_status: trio.TaskStatus[KubeletSockets] = trio.TASK_STATUS_IGNORED) -> None:
    """Run until `stop` is set, then stop in order. Ready, with the sockets' paths, when the kubelet can call.

    Raises:
        OSError: the state directory or the device events cannot be had.
        ValueError: the sockets' paths are too long.
    """
    opened = await parts.run_blocking(parts.journal.open)
    parts.reporter.opened(opened)
    async with trio.open_nursery() as supporters:
        await supporters.start(parts.probes)
        await supporters.start(parts.journal.run)
        await supporters.start(parts.side.support)
        await supporters.start(parts.announcer.run)
        await supporters.start(parts.reloader.run)
        await supporters.start(parts.tell_changes)
        supporters.start_soon(parts.own_node.run)
        supporters.start_soon(parts.crossing.run, stop)
        async with trio.open_nursery() as hardware:
            async with trio.open_nursery() as claims:
                await claims.start(parts.desk.run)
                async with trio.open_nursery() as intake:
                    await intake.start(parts.inventory.run)
                    await hardware.start(parts.cards.run)  # after the first scan: what is offered first is what is there
                    await intake.start(parts.health.run)
                    await intake.start(parts.side.offering.run)
                    await intake.start(parts.side.publish)
                    parts.reporter.recovered(await parts.reconciler.recover())
                    await intake.start(parts.reconciler.run)
                    await intake.start(parts.decommissioner.run)
                    sockets = await parts.sockets()
                    if not stop.is_set():  # of a kubelet that speaks the other DRA we do not even want to be known
                        await intake.start(partial(_serve, parts, sockets))
                    task_status.started(sockets)
                    await stop.wait()
                    log.info("stopping: no new calls, %d claims in work", parts.desk.busy())
                    hardware.cancel_scope.deadline = trio.current_time() + parts.grace_seconds()
                    intake.cancel_scope.cancel()
                parts.desk.close()
            parts.cards.close()
        supporters.cancel_scope.cancel()
    log.info("stopped")


async def _serve(parts: Parts, sockets: KubeletSockets, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Both sockets: the one the kubelet calls first, then the one by which it finds us; the other way round when stopping."""
    async with trio.open_nursery() as outer:
        await outer.start(
            partial(
                endpoint.serve,
                parts.listener,
                parts.directory_watch,
                parts.side.routes(parts.desk),
                sockets.endpoint,
                delays=_socket_delays(parts),
            )
        )
        async with trio.open_nursery() as inner:
            await inner.start(partial(_register, parts, sockets))
            task_status.started()
            await trio.sleep_forever()


async def _register(parts: Parts, sockets: KubeletSockets, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await registration.register(
        parts.listener,
        parts.directory_watch,
        socket_path=sockets.registrar,
        info=registration.PluginInfo(parts.driver, sockets.endpoint, parts.side.announces),
        on_get_info=parts.side.on_get_info,
        state=parts.registration,
        delays=_socket_delays(parts),
        clock=parts.clock,
        take_over=True,
        task_status=task_status,
    )


def _socket_delays(parts: Parts) -> Callable[[], Iterator[float]]:
    return partial(backoff.delays, parts.random, first_seconds=1, cap_seconds=60)
