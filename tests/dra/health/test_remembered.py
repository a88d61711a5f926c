"""What is remembered of GPUs' health survives, and garbage is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.health import remembered
from dra.health.recovery import Attempt
from dra.health.remembered import Remembered
from dra.health.verdict import Case, Hold
from dra.names import Bdf

BDF = Bdf("0000:18:00.0")


def test_it_is_read_as_it_was_written() -> None:
    case = Case(Hold(held=5.0, down=6.0, flaps=2, text="too hot"), Hold(released=3.0))
    whole = Remembered(
        pci_ids={BDF: "0xe211"},
        cases={BDF: {"temperature": case}},
        attempts=(Attempt(bdf=BDF, pci_id="0xe211", method="rebind", at=1.0, over=True),),
    )
    assert remembered.from_json(remembered.to_json(whole)) == whole


def test_a_file_of_a_newer_driver_is_refused() -> None:
    with pytest.raises(ValueError, match="of version 2, this driver knows 1"):
        remembered.from_json(b'{"version": 2}')


@given(st.binary(max_size=80))
def test_garbage_is_refused_and_nothing_worse(data: bytes) -> None:
    try:
        remembered.from_json(data)
    except ValueError:
        return
