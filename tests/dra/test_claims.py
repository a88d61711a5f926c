"""The table of a claim's life is complete and leads where it must."""

from __future__ import annotations

import pytest

from dra.claims import TRANSITIONS, Happening, Stage, advance


def test_every_stage_has_a_row() -> None:
    assert set(TRANSITIONS) == set(Stage)


def test_unprepare_is_accepted_in_every_stage_and_leads_towards_absence() -> None:
    for stage in Stage:
        assert advance(stage, Happening.UNPREPARE) in (Stage.ABSENT, Stage.RELEASING)


def test_there_is_no_way_back_from_releasing_but_through_absence() -> None:
    assert set(TRANSITIONS[Stage.RELEASING].values()) <= {Stage.RELEASING, Stage.ABSENT, Stage.PARKED}


def test_prepare_is_idempotent() -> None:
    for stage in (Stage.GRANTED, Stage.PREPARED):
        assert advance(stage, Happening.PREPARE) is stage


def test_a_happening_the_table_does_not_know_names_both() -> None:
    with pytest.raises(AssertionError, match="absent cannot meet cleared"):
        advance(Stage.ABSENT, Happening.CLEARED)
