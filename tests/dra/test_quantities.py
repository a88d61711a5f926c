from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [("16384Mi", 16 << 30), ("1k", 1000), ("1e3", 1000), ("1.5Gi", 3 << 29), ("0", 0), ("-2M", -2_000_000), ("1500m", 2), ("-1500m", -2)],
)
def test_values_are_those_of_kubernetes(text: str, value: int) -> None:
    assert quantities.parse(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1gi", "0x10", "1e", "٣", "1e999999999", "1..2"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.nanos(text)


def test_equal_compares_values_and_falls_back_to_text() -> None:
    assert quantities.equal("1024Mi", "1Gi")
    assert quantities.equal("1k", "1000")
    assert not quantities.equal("1G", "1Gi")
    assert quantities.equal("?", "?") and not quantities.equal("?", "1")


@given(st.integers(0, 1 << 50))
def test_mebibytes_never_promise_more_than_there_is(size: int) -> None:
    assert 0 <= size - quantities.parse(quantities.mebibytes(size)) < 1 << 20
