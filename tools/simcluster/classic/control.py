"""The controllers and the scheduler of a release with classic DRA, in one task: after every write they look at what was written."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from tools.simcluster.classic.claims import ClaimController
from tools.simcluster.classic.scheduler import Scheduler
from tools.simcluster.classic.users import Users
from tools.simcluster.garbage import Garbage
from tools.simcluster.kinds import Kind
from tools.simcluster.registry import Registry
from tools.simcluster.store import Change


async def run(registry: Registry, log: Callable[[str], None], *, schedules: bool = True) -> None:
    """Until the server is one without classic DRA. Without `schedules` pods stay where a test puts them."""
    users, garbage = Users(registry.store), Garbage(registry, log)
    claims = ClaimController(registry, users, log)
    scheduler = Scheduler(registry, users, log) if schedules else None

    def note(kind: Kind, change: Change) -> None:
        # First: the others ask it.
        users.note(kind, change)
        garbage.note(kind, change)
        claims.note(kind, change)
        if scheduler is not None:
            scheduler.note(kind, change)

    with registry.store.listening(note):
        while registry.release.is_classic:
            did_something = garbage.collect()
            did_something = claims.step() or did_something
            did_something = (scheduler is not None and scheduler.step()) or did_something
            if did_something:
                # Others get their turn between steps, also when there is always something to do.
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(scheduler.quiet_until() if scheduler is not None else math.inf):
                await registry.store.changed()
