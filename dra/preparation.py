"""What to do next for a claim, computed from facts alone: normal work, retry and recovery after a crash are one code path."""

from __future__ import annotations

from collections.abc import Mapping

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
    metadata_now: Mapping[str, bytes] = {}
    """The claim's metadata files as they are."""
    metadata_wanted: Mapping[str, bytes] = {}
    """The same as they should be."""


class WriteCdi(msgspec.Struct, frozen=True):
    data: bytes


class RemoveCdi(msgspec.Struct, frozen=True):
    """Take the claim's CDI file away."""


class WriteMetadata(msgspec.Struct, frozen=True):
    name: str
    data: bytes


class RemoveMetadata(msgspec.Struct, frozen=True):
    name: str


class ForgetClaim(msgspec.Struct, frozen=True):
    """Drop the record: everything else is clean."""


Step = WriteMetadata | WriteCdi | RemoveCdi | RemoveMetadata | ForgetClaim


def next_step(facts: Facts) -> Step | None:
    """The next step towards what the record says, None when nothing is left to do.

    Taking apart goes hardware first, then CDI file, then what it mounts, then record, so that a crash in between repeats it; building
    goes the other way.
    """
    record = facts.record if facts.record is not None and facts.record.stage is not Stage.RELEASING else None
    for name, data in facts.metadata_wanted.items() if record is not None else ():
        if facts.metadata_now.get(name) != data:
            return WriteMetadata(name, data)
    cdi_wanted = facts.cdi_wanted if record is not None else None
    if facts.cdi_now != cdi_wanted:
        return WriteCdi(cdi_wanted) if cdi_wanted is not None else RemoveCdi()
    for name in facts.metadata_now:
        if record is None or name not in facts.metadata_wanted:
            return RemoveMetadata(name)
    return ForgetClaim() if record is None and facts.record is not None else None


def stage(facts: Facts) -> Stage:
    """The claim's stage by record and facts together."""
    if facts.record is None:
        return Stage.ABSENT
    if facts.record.stage is Stage.RELEASING:
        return Stage.RELEASING
    return Stage.PREPARED if facts.cdi_now == facts.cdi_wanted else Stage.GRANTED
