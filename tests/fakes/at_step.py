"""Something that happens between two steps of Trio's scheduler, whatever tasks they belong to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import trio


class AtStep(trio.abc.Instrument):
    """Calls `action` before the n-th step that any task takes once armed."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.left = step
        self.action = action

    @property
    def fired(self) -> bool:
        return self.left <= 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()


@contextlib.contextmanager
def armed(at: AtStep) -> Iterator[None]:
    trio.lowlevel.add_instrument(at)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(at)


def after_steps(steps: int, action: Callable[[], object]) -> None:
    """Once, so many steps from now; nobody waits for it."""

    def act() -> None:
        trio.lowlevel.remove_instrument(at)
        action()

    at = AtStep(steps, act)
    trio.lowlevel.add_instrument(at)
