"""Who holds what on this node: the journal folded into one immutable view, and the overlap guard over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dra.carvings import Carving, Uncarve
from dra.claims import Stage
from dra.classic import handle
from dra.devices import Gpu
from dra.names import Bdf, ClaimUid, DeviceName
from dra.records import Grant, Kept, Record


class Parked(msgspec.Struct, frozen=True):
    """Bytes of the journal that could not be believed."""

    raw: bytes
    why: str
    uid: ClaimUid | None = None
    """The claim they are about, when that much is legible."""
    devices: tuple[DeviceName, ...] = ()
    """Devices it may hold, as far as known; guarded until the claim is prepared anew or unprepared."""


class Forget(msgspec.Struct, frozen=True):
    """A change: the claim is gone from this node."""

    uid: ClaimUid


Change = Kept | Forget | Carving | Uncarve


class Ledger(msgspec.Struct, frozen=True):
    claims: Mapping[ClaimUid, Kept] = {}
    parked: tuple[Parked, ...] = ()
    carvings: Mapping[Bdf, Carving] = {}
    """Cards that are cut into VFs by this driver, by the PF's address."""

    def get(self, uid: ClaimUid) -> Record | None:
        kept = self.claims.get(uid)
        return kept.record if kept is not None else None

    def records(self) -> Iterable[Record]:
        return (kept.record for kept in self.claims.values())

    def stage(self, uid: ClaimUid) -> Stage:
        """What the journal alone says: never PREPARED, which needs facts."""
        if (record := self.get(uid)) is not None:
            return record.stage
        return Stage.PARKED if any(parked.uid == uid for parked in self.parked) else Stage.ABSENT

    def apply(self, changes: Iterable[Change]) -> Ledger:
        """A ledger with the changes made, in order. Whatever is known anew of a claim settles what was parked of it."""
        claims, carvings, settled = dict(self.claims), dict(self.carvings), set[ClaimUid]()
        for change in changes:
            match change:
                case Forget(uid):
                    claims.pop(uid, None)
                    settled.add(uid)
                case Kept(record):
                    claims[record.uid] = change
                    settled.add(record.uid)
                case Carving(bdf=bdf):
                    carvings[bdf] = change
                case Uncarve(bdf):
                    carvings.pop(bdf, None)
        return Ledger(claims, tuple(parked for parked in self.parked if parked.uid not in settled), carvings)

    def put(self, record: Record) -> Kept:
        """The change that writes `record`, with the unknown fields of its predecessor kept."""
        old = self.claims.get(record.uid)
        return Kept(record, old.extra if old is not None else {})

    def held_by(self, uid: ClaimUid, grants: Iterable[Grant], *, seen_here: bool = False) -> tuple[ClaimUid, DeviceName] | None:
        """The overlap guard: the first other claim that stands in the way of `grants`, and the device.

        The scheduler's view can lag (a force-deleted pod's device is given away before its unprepare came), so this node is the last
        line of defence. Admin access neither holds nor is held up; two shares of one device get along; a PF and its VFs do not, nor do VFs
        for which the card would have to be cut in two ways.

        `seen_here` says the claim's own CDI file stands on this node: then it is the owner that an illegible record may be about, and
        what is parked does not stop it.
        """
        wanted = [grant for grant in grants if not grant.admin]
        for kept in self.claims.values():
            if kept.record.uid == uid:
                continue
            for held in kept.record.grants:
                if held.admin:
                    continue
                for grant in wanted:
                    if _exclude(held, grant):
                        return kept.record.uid, grant.device
        for parked in self.parked:
            if parked.uid != uid and not seen_here:
                for grant in wanted:
                    if grant.device in parked.devices:
                        return parked.uid or ClaimUid("unknown"), grant.device
        return None

    def in_use(self) -> dict[DeviceName, list[ClaimUid]]:
        """Devices that are held (not merely looked at), and by which claims."""
        used: dict[DeviceName, list[ClaimUid]] = {}
        for kept in self.claims.values():
            for grant in kept.record.grants:
                if not grant.admin:
                    used.setdefault(grant.device, []).append(kept.record.uid)
        for parked in self.parked:
            for device in parked.devices:
                used.setdefault(device, []).append(parked.uid or ClaimUid("unknown"))
        return used


def users(ledger: Ledger, gpus: Mapping[Bdf, Gpu], *, going: bool = True) -> dict[Bdf, dict[int, list[ClaimUid]]]:
    """Claims that hold something of a card, by its address and the VF, 0 for the card itself. Looking on is not holding.

    Args:
        going: claims that are being released too.
    """
    found: dict[Bdf, dict[int, list[ClaimUid]]] = {}
    for record in ledger.records():
        if record.stage is Stage.RELEASING and not going:
            continue
        for grant in record.grants:
            if not grant.admin:
                places = card.vf_places if (card := gpus.get(grant.card)) is not None else None
                # Without its PF nobody can tell which VF it is, only that it is one.
                index = 0 if grant.parent is None else places.index(grant.parent, grant.bdf) if places is not None else 1
                found.setdefault(grant.card, {}).setdefault(index, []).append(record.uid)
    return found


def layouts(ledger: Ledger) -> dict[Bdf, handle.Layout]:
    """By card: how it has to be cut for the claims that are to have VFs of it, where they say so. The overlap guard lets in no two ways."""
    return {
        grant.card: grant.layout
        for record in ledger.records()
        if record.stage is Stage.GRANTED
        for grant in record.grants
        if grant.layout and not grant.admin
    }


def drivers(ledger: Ledger) -> dict[Bdf, dict[Bdf, str]]:
    """By card: functions that a claim wants with another driver, or wanted until it was let go (an empty word: back to its own)."""
    found: dict[Bdf, dict[Bdf, str]] = {}
    for record in ledger.records():
        for grant in record.grants:
            if grant.driver and not grant.admin:
                found.setdefault(grant.card, {})[grant.bdf] = grant.driver if record.stage is Stage.GRANTED else ""
    return found


def _exclude(held: Grant, wanted: Grant) -> bool:
    if held.bdf == wanted.bdf:
        return held.exclusive or wanted.exclusive
    if held.parent is not None and held.parent == wanted.parent:
        return held.layout != wanted.layout  # the card cannot be cut in two ways
    return wanted.parent == held.bdf or held.parent == wanted.bdf
