"""Delays grow, stay below the cap and are spread."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from dra import backoff


def test_delays_double_up_to_the_cap() -> None:
    assert list(islice(backoff.delays(lambda: 1.0, first_seconds=1, cap_seconds=5), 5)) == [1, 2, 4, 5, 5]


@given(st.floats(0, 1, exclude_max=True))
def test_spread_never_exceeds_the_range(chance: float) -> None:
    for delay, whole in zip(backoff.delays(lambda: chance, first_seconds=1, cap_seconds=4), (1, 2, 4, 4), strict=False):
        assert whole / 2 <= delay <= whole
