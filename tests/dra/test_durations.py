"""Lengths of time as users write them."""

from __future__ import annotations

import pytest

from dra import durations


@pytest.mark.parametrize(("text", "value"), [("500ms", 0.5), ("10s", 10), ("1m30s", 90), ("2h", 7200), ("1h0m1s", 3601), ("0s", 0)])
def test_durations(text: str, value: float) -> None:
    assert durations.seconds(text) == value


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1d", "1s1m", " 1s", "１s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        durations.seconds(text)
