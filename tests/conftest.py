"""A deadline for every asynchronous test, so that a lost wakeup is a failure with a traceback and never a run that hangs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

USUAL = 10.0  # seconds; the slowest usual test takes about one on an idle machine, the rest is for a busy one
SLOW = 60.0  # seconds, for @pytest.mark.slow
VIRTUAL = 30 * 86400.0  # seconds of a mocked clock: longer than any story told, and an idle autojump clock gets there at once
MOCKED = {"autojump_clock", "mock_clock"}


@pytest.hookimpl(tryfirst=True)  # before pytest-trio takes the test function over
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
            continue
        if MOCKED & set(item.fixturenames):
            item.obj = _limited(item.obj, VIRTUAL)
        else:
            item.obj = _limited(item.obj, SLOW if item.get_closest_marker("slow") else USUAL)


def _limited(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def within_deadline(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(seconds):
            await test(*args, **kwargs)

    return within_deadline
