"""A deadline for every asynchronous test, so that a lost wakeup is a failure with a traceback and never a run that hangs; and the figures
that a run counted (points of power cuts, steps cancelled), printed after it."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any

import hypothesis
import pytest
import trio

hypothesis.settings.register_profile("busy", deadline=None)  # machines are shared: a time says nothing about the code
hypothesis.settings.load_profile("busy")

collect_ignore = [] if "CLUSTER_E2E" in os.environ else ["e2e"]  # needs a cluster, which tools/cluster test brings

USUAL = 10.0  # seconds; the slowest usual test takes about one on an idle machine, the rest is for a busy one
SLOW = 60.0  # seconds, for @pytest.mark.slow
REAL = 300.0  # seconds, where a real kubelet is under test: after a failed prepare it tries again only after a minute and a half
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
            usual = REAL if "CLUSTER_E2E" in os.environ else USUAL
            item.obj = _limited(item.obj, max(SLOW, usual) if item.get_closest_marker("slow") else usual)


def _limited(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def within_deadline(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(seconds):
            await test(*args, **kwargs)

    return within_deadline


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """`figure("what was counted", 7)` prints it in the summary of the run."""

    def record(what: str, count: int) -> None:
        record_property(f"figure:{what}", count)

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = {
        name.removeprefix("figure:"): value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name.startswith("figure:")
    }
    if figures:
        terminalreporter.section("figures")
        for name, value in sorted(figures.items()):
            terminalreporter.line(f"{name}: {value}")
