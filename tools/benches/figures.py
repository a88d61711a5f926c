"""A figure, what it is to be, and how figures are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True):
    name: str
    """Stable: scripts compare by it."""
    value: float
    unit: str
    n: int
    """How many times it was measured."""
    command: str
    """What measures it again."""
    aim: float | None = None
    """The value should be at or below it."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are at or below (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def write(figures: Sequence[Figure], path: Path) -> None:
    """For programs: a list of {"name", "value", "unit", "n", "command"}."""
    rows = [{"name": f.name, "value": f.value, "unit": f.unit, "n": f.n, "command": f.command} for f in figures]
    path.write_text(json.dumps(rows, indent=2) + "\n")


def show(figures: Sequence[Figure]) -> None:
    """For people; colours on a terminal only."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading, side in (("figure", "left"), ("value", "right"), ("unit", "left"), ("aim", "right"), ("n", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for figure in figures:
        missed = figure.aim is not None and figure.value > figure.aim
        value = f"[red]{figure.value:.1f}[/]" if missed else f"{figure.value:.1f}"
        aim = "" if figure.aim is None else f"≤ {figure.aim:g}"
        table.add_row(figure.name, value, figure.unit, aim, str(figure.n))
    Console(emoji=False, highlight=False).print(table)
