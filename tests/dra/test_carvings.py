"""Cards in the journal: beside claims, and never believed from an older generation."""

from __future__ import annotations

import pytest

from dra import carvings, journal
from dra.carvings import Carving, Uncarve
from dra.ledger import Forget, Ledger
from dra.names import Bdf, BootId, ClaimUid
from dra.records import Kept, Record
from tests.fakes.vf_cards import FLEX_170, named

CARVING = Carving(bdf=FLEX_170.bdf, pci_id="0x56c0", profiles=(named("flex170_m4"),) * 4, boot_id=BootId("boot"))


def test_a_carving_reads_as_it_was_written_and_its_end_takes_it_away() -> None:
    data = journal.line(CARVING)
    assert journal.read(data).ledger.carvings == {FLEX_170.bdf: CARVING}
    assert journal.read(data + journal.line(Uncarve(FLEX_170.bdf))).ledger == Ledger()


def test_a_snapshot_keeps_cards_and_claims() -> None:
    record = Kept(Record(uid=ClaimUid("c"), namespace="d", name="n"))
    ledger = Ledger().apply([record, CARVING])
    assert journal.read(journal.snapshot(ledger)).ledger == ledger
    assert ledger.apply([Forget(ClaimUid("c"))]).carvings == {FLEX_170.bdf: CARVING}


def test_a_damaged_line_is_parked_and_calls_no_vf_ours() -> None:
    line = bytearray(journal.line(CARVING))
    line[40] ^= 1
    ledger = journal.read(bytes(line)).ledger
    assert ledger.carvings == {} and len(ledger.parked) == 1


def test_the_previous_generation_adds_no_cards() -> None:
    reading = journal.recover(b"00000000 {broken\n", journal.line(CARVING))
    assert reading.ledger.carvings == {}


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        carvings.from_json(b'{"carved": 1}')
    with pytest.raises(ValueError, match="Object missing"):
        carvings.from_json(b'{"carving": {"bdf": "0000:00:02.0"}}')
    assert carvings.from_json(b'{"uncarve": "0000:2c:00.0"}') == Uncarve(Bdf("0000:2c:00.0"))
