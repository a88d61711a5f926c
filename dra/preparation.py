"""What to do next for a claim, computed from facts alone: normal work, retry and recovery after a crash are one code path."""

from __future__ import annotations

import msgspec

from dra.claims import Stage
from dra.names import ClaimUid
from dra.records import Record


class Facts(msgspec.Struct, frozen=True):
    """What is true of one claim right now."""

    uid: ClaimUid
    record: Record | None
    """What the journal durably says."""
    cdi_now: bytes | None
    """The claim's CDI file as it is, None if there is none."""
    cdi_wanted: bytes | None
    """What it would say, made from the record and the inventory; None if no file is called for."""


class WriteCdi(msgspec.Struct, frozen=True):
    data: bytes


class RemoveCdi(msgspec.Struct, frozen=True):
    """Take the claim's CDI file away."""


class ForgetClaim(msgspec.Struct, frozen=True):
    """Drop the record: everything else is clean."""


Step = WriteCdi | RemoveCdi | ForgetClaim


def next_step(facts: Facts) -> Step | None:
    """The next step towards what the record says, None when nothing is left to do.

    Taking apart goes hardware first, then CDI file, then record, so that a crash in between repeats it; building goes the other way.
    """
    if facts.record is None:
        return RemoveCdi() if facts.cdi_now is not None else None
    if facts.record.stage is Stage.RELEASING:
        return RemoveCdi() if facts.cdi_now is not None else ForgetClaim()
    if facts.cdi_now == facts.cdi_wanted:
        return None
    return WriteCdi(facts.cdi_wanted) if facts.cdi_wanted is not None else RemoveCdi()


def stage(facts: Facts) -> Stage:
    """The claim's stage by record and facts together."""
    if facts.record is None:
        return Stage.ABSENT
    if facts.record.stage is Stage.RELEASING:
        return Stage.RELEASING
    return Stage.PREPARED if facts.cdi_now == facts.cdi_wanted else Stage.GRANTED
