"""The next step follows from the facts alone, whatever happened before."""

from __future__ import annotations

import itertools

from dra import preparation
from dra.claims import Stage
from dra.names import ClaimUid
from dra.preparation import Facts, ForgetClaim, RemoveCdi, WriteCdi
from dra.records import Record

UID = ClaimUid("c")


def facts(stage: Stage | None, now: bytes | None, wanted: bytes | None) -> Facts:
    return Facts(UID, None if stage is None else Record(uid=UID, namespace="d", name="n", stage=stage), now, wanted)


def test_building() -> None:
    assert preparation.next_step(facts(Stage.GRANTED, None, b"file")) == WriteCdi(b"file")
    assert preparation.next_step(facts(Stage.GRANTED, b"older", b"file")) == WriteCdi(b"file")
    assert preparation.next_step(facts(Stage.GRANTED, b"file", b"file")) is None


def test_a_device_that_went_away_takes_its_file_along() -> None:
    assert preparation.next_step(facts(Stage.GRANTED, b"file", None)) == RemoveCdi()


def test_taking_apart_goes_file_first_record_last() -> None:
    assert preparation.next_step(facts(Stage.RELEASING, b"file", None)) == RemoveCdi()
    assert preparation.next_step(facts(Stage.RELEASING, None, None)) == ForgetClaim()


def test_a_file_nobody_owns_goes() -> None:
    assert preparation.next_step(facts(None, b"file", None)) == RemoveCdi()
    assert preparation.next_step(facts(None, None, None)) is None


def test_every_combination_comes_to_rest() -> None:
    """Applying each step's effect to the facts ends within three steps, from anywhere."""
    for start in itertools.product((None, Stage.GRANTED, Stage.RELEASING), (None, b"old", b"file"), (None, b"file")):
        stage, now, wanted = start
        for _ in range(4):
            step = preparation.next_step(facts(stage, now, wanted))
            match step:
                case WriteCdi(data):
                    now = data
                case RemoveCdi():
                    now = None
                case ForgetClaim():
                    stage, wanted = None, None
                case None:
                    break
        else:
            raise AssertionError(start)
        assert preparation.stage(facts(stage, now, wanted)) in (Stage.ABSENT, Stage.PREPARED)
