"""The journal's bytes: one line a change, each with a checksum of its own raw bytes.

A line is `<crc32 of the rest, 8 hex digits> <JSON>\\n`. The JSON is a record (`dra.records`) or `{"forget": "<uid>"}`, or the same two of a
card that is cut into VFs (`dra.carvings`). The last line of a claim or card wins. Reading never fails: what does not check is parked, an
unfinished last line (a write cut short, which nobody was told had succeeded) is dropped, and the checksum is over bytes as read, never
over a re-encoding (a library's new default would break it).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from dra import carvings, records
from dra.carvings import Carving, Uncarve
from dra.ledger import Change, Forget, Ledger, Parked
from dra.names import BootId, ClaimUid, DeviceName, claim_uid
from dra.records import Kept

FILE: Final = "journal"
PREVIOUS: Final = "journal.previous"
"""The generation before the last compaction: read when the current one is damaged or missing."""
PARKED: Final = "journal.parked"
"""Raw lines that could not be believed, each after the boot id of that day: a guard over their devices, and evidence for people."""

COMPACT_ABOVE_BYTES: Final = 256 * 1024
"""About 500 claims' worth of lines: small enough to read at start in milliseconds, large enough that busy nodes compact about hourly."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""No journal of ours comes near it; a larger file is not ours and is not read into memory."""

_UID_HINT: Final = re.compile(rb'"(?:uid|forget)":"([A-Za-z0-9.-]{1,63})"')
_DEVICE_HINT: Final = re.compile(rb'"device":"([a-z0-9-]{1,63})"')
_LINE_START: Final = re.compile(rb"[0-9a-f]{8} \{")


class Reading(msgspec.Struct, frozen=True):
    """What a journal says."""

    ledger: Ledger
    lines: int
    """Good lines; with the claims alive it tells how much is dead weight."""
    torn_bytes: int
    """Length of an unfinished last line that was dropped."""


def line(change: Change) -> bytes:
    """One change as it is appended."""
    match change:
        case Forget(uid):
            body = msgspec.json.encode({"forget": uid})
        case Carving() | Uncarve():
            body = carvings.to_json(change)
        case Kept():
            body = records.to_json(change)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def snapshot(ledger: Ledger) -> bytes:
    """The shortest journal that reads as `ledger`'s cards and claims (parked lines go to PARKED)."""
    alive: list[Change] = [*ledger.carvings.values(), *ledger.claims.values()]
    return b"".join(map(line, alive))


def read(data: bytes, base: Ledger | None = None) -> Reading:
    """Fold a journal, or the tail of one onto `base`. Never raises."""
    changes: list[Change] = []
    parked: list[Parked] = []
    *whole, tail = data.split(b"\n")
    for raw in whole:
        if raw:
            for piece in _pieces(raw):
                if isinstance(piece, Parked):
                    parked.append(piece)
                else:
                    changes.append(piece)
    torn = len(tail)
    if tail:
        # The newline itself may be what was damaged: a complete line without it still counts.
        pieces = list(_pieces(tail))
        good = [piece for piece in pieces if not isinstance(piece, Parked)]
        changes += good
        if len(good) == len(pieces):
            torn = 0
    ledger = (base or Ledger()).apply(changes)
    # A bad line is settled when a good one speaks of the same claim and the same devices; the damage may have been in the UID itself.
    told: dict[ClaimUid, set[DeviceName]] = {}
    for change in changes:
        match change:
            case Forget(uid):
                told.setdefault(uid, set())
            case Kept(record):
                told.setdefault(record.uid, set()).update(grant.device for grant in record.grants)
    doubtful = tuple(p for p in parked if p.uid is None or p.uid not in told or not told[p.uid].issuperset(p.devices))
    return Reading(msgspec.structs.replace(ledger, parked=ledger.parked + doubtful), len(changes), torn)


def parked_lines(parked: Iterable[Parked], boot_id: BootId) -> bytes:
    """The content of PARKED."""
    return b"".join(b"%s %s\n" % (boot_id.encode(), p.raw) for p in parked)


def read_parked(data: bytes, boot_id: BootId) -> tuple[Parked, ...]:
    """What is still in doubt. Lines of another boot guard nothing: no container and no VF outlives a reboot."""
    prefix = boot_id.encode() + b" "
    lines = (raw.removeprefix(prefix) for raw in data.split(b"\n") if raw.startswith(prefix))
    return tuple(_park(raw, "set aside at an earlier start") for raw in lines)


def recover(current: bytes | None, previous: bytes | None) -> Reading:
    """Read the current generation and, where it is damaged or missing, what the previous one can add.

    A claim that only the previous generation knows is taken from there when the current one has unreadable lines: better a claim that
    is checked against the API server and released than a device given out twice. Cards are not: VFs that only an old record calls ours
    are left alone.
    """
    reading = read(current or b"")
    if previous and (current is None or reading.ledger.parked):
        older = read(previous)
        mentioned = set(_mentioned(current or b""))
        missing = [kept for uid, kept in older.ledger.claims.items() if uid not in mentioned]
        if missing:
            ledger = reading.ledger.apply(missing)
            return Reading(ledger, reading.lines, reading.torn_bytes)
    return reading


def _mentioned(data: bytes) -> Iterator[ClaimUid]:
    for match in _UID_HINT.finditer(data):
        yield ClaimUid(match.group(1).decode())


def _pieces(raw: bytes) -> Iterable[Change | Parked]:
    """The changes in one line; two when the newline between two lines was damaged."""
    change = _parse(raw)
    if not isinstance(change, Parked):
        return [change]
    for match in _LINE_START.finditer(raw, 1):
        second = _parse(raw[match.start() :])
        if not isinstance(second, Parked):
            first = _parse(raw[: match.start() - 1])
            return [first, second]
    for match in _LINE_START.finditer(raw, 1):
        first = _parse(raw[: match.start() - 1])
        if not isinstance(first, Parked):
            return [first, _parse(raw[match.start() :])]
    return [change]


def _parse(raw: bytes) -> Change | Parked:
    checksum, _, body = raw.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return _park(raw, "checksum does not match")
    try:
        if body.startswith(b'{"forget"'):
            return Forget(claim_uid(msgspec.json.decode(body, type=dict[str, str])["forget"]))
        if body.startswith((b'{"carving"', b'{"uncarve"')):
            return carvings.from_json(body)
        kept = records.from_json(body)
        claim_uid(kept.record.uid)
    except (ValueError, KeyError) as error:
        return _park(raw, str(error))
    return kept


def _park(raw: bytes, why: str) -> Parked:
    uid = _UID_HINT.search(raw)
    devices = tuple(dict.fromkeys(DeviceName(d.decode()) for d in _DEVICE_HINT.findall(raw)))
    return Parked(raw, why, ClaimUid(uid.group(1).decode()) if uid else None, devices)
