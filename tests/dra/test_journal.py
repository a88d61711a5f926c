"""The journal never fails to read, loses nothing that was acknowledged, and parks at most one claim for one damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import journal
from dra.claims import Stage
from dra.ledger import Forget, Ledger
from dra.names import Bdf, BootId, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Kept, Record


def record(number: int, *, stage: Stage = Stage.GRANTED) -> Record:
    bdf = Bdf(f"0000:{number:02x}:00.0")
    device = DeviceName(f"0000-{number:02x}-00-0-0x56c0")
    uid = ClaimUid(f"11111111-2222-3333-4444-{number:012d}")
    grant = Grant(requests=("gpu",), pool=PoolName("node1"), device=device, bdf=bdf, cdi_ids=(f"intel.com/gpu={uid}-{device}",))
    return Record(
        uid=uid, namespace="default", name=f"claim-{number}", stage=stage, grants=(grant,), boot_id=BootId("boot"), granted_at=1.5
    )


THREE = tuple(Kept(record(n)) for n in (1, 2, 3))
BYTES = b"".join(map(journal.line, THREE))


def test_what_was_written_is_read() -> None:
    reading = journal.read(BYTES)
    assert [kept.record for kept in reading.ledger.claims.values()] == [kept.record for kept in THREE]
    assert (reading.lines, reading.torn_bytes, reading.ledger.parked) == (3, 0, ())


def test_the_last_line_of_a_claim_wins_and_forgotten_claims_are_gone() -> None:
    uid = record(1).uid
    data = BYTES + journal.line(Kept(record(2, stage=Stage.RELEASING))) + journal.line(Forget(uid))
    ledger = journal.read(data).ledger
    assert ledger.stage(uid) is Stage.ABSENT
    assert ledger.stage(record(2).uid) is Stage.RELEASING
    assert ledger.stage(record(3).uid) is Stage.GRANTED


def test_a_snapshot_reads_as_the_same_ledger() -> None:
    ledger = journal.read(BYTES).ledger
    assert journal.read(journal.snapshot(ledger)).ledger == ledger


@pytest.mark.parametrize("bit", range(8))
def test_one_flipped_bit_anywhere_parks_at_most_one_claim_and_invents_none(bit: int) -> None:
    known = {kept.record.uid: kept.record for kept in THREE}
    for position in range(len(BYTES)):
        damaged = bytearray(BYTES)
        damaged[position] ^= 1 << bit
        ledger = journal.read(bytes(damaged)).ledger
        survivors = {kept.record.uid: kept.record for kept in ledger.claims.values()}
        assert len(survivors) >= 2, f"byte {position}: more than one claim lost"
        assert all(known[uid] == kept for uid, kept in survivors.items()), f"byte {position}: a damaged record was believed"
        lost = set(known) - set(survivors)
        if lost and position < len(BYTES) - 1:
            # Its device stays guarded, or the damage was in the very words that name it.
            assert ledger.parked, f"byte {position}: lost without a trace"


def test_cut_at_every_byte_only_the_unfinished_line_is_missing() -> None:
    ends = [0]
    for kept in THREE:
        ends.append(ends[-1] + len(journal.line(kept)))
    for length in range(len(BYTES)):
        reading = journal.read(BYTES[:length])
        whole = sum(1 for end in ends[1:] if end - 1 <= length)  # the newline alone adds nothing
        assert len(reading.ledger.claims) == whole, f"cut at {length}"
        assert reading.ledger.parked == (), f"cut at {length}: a write that was never acknowledged is no corruption"


@given(st.binary(max_size=600))
def test_any_bytes_at_all_are_read(noise: bytes) -> None:
    reading = journal.read(noise)
    assert reading.ledger.claims == {}
    mixed = journal.read(BYTES + noise + b"\n" + journal.line(Kept(record(9))))
    assert record(9).uid in mixed.ledger.claims


@given(st.integers(0, len(BYTES)), st.binary(min_size=1, max_size=40))
def test_bytes_written_over_the_journal_harm_only_what_they_hit(position: int, garbage: bytes) -> None:
    damaged = BYTES[:position] + garbage + BYTES[position + len(garbage) :]
    for kept in journal.read(damaged).ledger.claims.values():
        assert kept in THREE


def test_a_parked_claim_keeps_its_device_from_others_until_it_is_settled() -> None:
    damaged = BYTES.replace(b'"name":"claim-2"', b'"name":"claim-X"')
    ledger = journal.read(damaged).ledger
    (parked,) = ledger.parked
    assert parked.uid == record(2).uid
    assert ledger.stage(parked.uid) is Stage.PARKED
    newcomer = record(2).grants
    assert ledger.held_by(ClaimUid("newcomer"), newcomer) == (parked.uid, newcomer[0].device)
    settled = ledger.apply([Forget(parked.uid)])
    assert settled.parked == ()
    assert settled.held_by(ClaimUid("newcomer"), newcomer) is None


def test_the_owner_whose_name_was_damaged_is_not_locked_out_of_its_own_device() -> None:
    damaged = BYTES.replace(record(2).uid.encode(), b"x" + record(2).uid.encode()[1:])
    ledger = journal.read(damaged).ledger
    assert ledger.held_by(record(2).uid, record(2).grants) is not None
    assert ledger.held_by(record(2).uid, record(2).grants, seen_here=True) is None


def test_parked_lines_guard_within_the_boot_and_are_forgotten_after_it() -> None:
    parked = journal.read(BYTES.replace(b'"name":"claim-2"', b'"name":"claim-X"')).ledger.parked
    kept = journal.parked_lines(parked, BootId("boot-a"))
    assert [p.uid for p in journal.read_parked(kept, BootId("boot-a"))] == [record(2).uid]
    assert journal.read_parked(kept, BootId("boot-b")) == ()


def test_the_previous_generation_fills_in_what_the_current_one_lost() -> None:
    newer = BYTES[: len(journal.line(THREE[0]))] + b"\x00" * 300 + b"\n"
    ledger = journal.recover(newer, BYTES).ledger
    assert set(ledger.claims) == {kept.record.uid for kept in THREE}
    assert set(journal.recover(None, BYTES).ledger.claims) == {kept.record.uid for kept in THREE}


def test_the_previous_generation_is_not_consulted_without_need() -> None:
    current = journal.line(THREE[0])
    assert set(journal.recover(current, BYTES).ledger.claims) == {THREE[0].record.uid}
    assert journal.recover(None, None).ledger == Ledger()


def test_fields_of_a_newer_driver_survive_a_rewrite_by_this_one() -> None:
    newer = Kept(record(1), {"layout": {"profile": "m4"}})
    ledger = journal.read(journal.line(newer)).ledger
    rewritten = ledger.apply([ledger.put(record(1, stage=Stage.RELEASING))])
    assert journal.read(journal.snapshot(rewritten)).ledger.claims[record(1).uid].extra == {"layout": {"profile": "m4"}}


def test_a_record_of_a_newer_version_is_parked_not_guessed_at() -> None:
    line = journal.line(Kept(record(1))).split(b" ", 1)[1].replace(b'"v":1', b'"v":2').rstrip(b"\n")
    import zlib

    reading = journal.read(b"%08x %s\n" % (zlib.crc32(line), line))
    assert reading.ledger.claims == {}
    assert "newer driver" in reading.ledger.parked[0].why
