"""The controller's whole task tree on one screen. `__main__` composes the parts, this runs them; nothing here decides anything.

Stopping needs no order among writes: what one has begun is found in the API server by whoever leads next.
"""

from __future__ import annotations

import logging

import trio

from nursery_apps.controller.parts import Parts

log = logging.getLogger(__name__)


async def run(parts: Parts, *, stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Run until `stop` is set; ready when probes are answered and leadership is sought.

    Raises:
        OSError: a port cannot be bound.
    """
    async with trio.open_nursery() as supporters:
        await supporters.start(parts.probes)
        await supporters.start(parts.announcer.run)
        await supporters.start(parts.reloader.run)
        await supporters.start(parts.services.alerts)
        await supporters.start(parts.services.webhook)
        supporters.start_soon(parts.dialect.run)
        async with trio.open_nursery() as leadership:
            leadership.start_soon(parts.lead)
            task_status.started()
            await stop.wait()
            log.info("stopping")
            leadership.cancel_scope.cancel()
        supporters.cancel_scope.cancel()
    log.info("stopped")
