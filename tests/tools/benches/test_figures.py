"""Figures are computed and written as promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.benches import figures
from tools.benches.figures import Figure


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (figures.percentile(values, 0.5), figures.percentile(values, 0.99), figures.percentile(values, 0)) == (3, 5, 1)
    assert figures.median([7.0]) == 7


def test_the_file_for_programs(tmp_path: Path) -> None:
    figures.write([Figure("a.b", 1.5, "ms", 3, "tools/bench a", 2.0)], tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text()) == [
        {"name": "a.b", "value": 1.5, "unit": "ms", "n": 3, "command": "tools/bench a"}
    ]


def test_the_table_is_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show([Figure("a.b", 3.0, "ms", 3, "tools/bench a", 2.0)])
    out = capsys.readouterr().out
    assert "a.b" in out and "≤ 2" in out and "\x1b" not in out
