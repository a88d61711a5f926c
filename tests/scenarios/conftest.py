"""Figures that a run produces (points of a power cut, checkpoints cancelled) are printed after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest


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
