"""Who holds what on this node: the journal folded into one immutable view, and the overlap guard over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dra.claims import Stage
from dra.names import ClaimUid, DeviceName
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


Change = Kept | Forget


class Ledger(msgspec.Struct, frozen=True):
    claims: Mapping[ClaimUid, Kept] = {}
    parked: tuple[Parked, ...] = ()

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
        claims, settled = dict(self.claims), set[ClaimUid]()
        for change in changes:
            if isinstance(change, Forget):
                claims.pop(change.uid, None)
                settled.add(change.uid)
            else:
                claims[change.record.uid] = change
                settled.add(change.record.uid)
        return Ledger(claims, tuple(parked for parked in self.parked if parked.uid not in settled))

    def put(self, record: Record) -> Kept:
        """The change that writes `record`, with the unknown fields of its predecessor kept."""
        old = self.claims.get(record.uid)
        return Kept(record, old.extra if old is not None else {})

    def held_by(self, uid: ClaimUid, grants: Iterable[Grant], *, seen_here: bool = False) -> tuple[ClaimUid, DeviceName] | None:
        """The overlap guard: the first other claim that stands in the way of `grants`, and the device.

        The scheduler's view can lag (a force-deleted pod's device is given away before its unprepare came), so this node is the last
        line of defence. Admin access neither holds nor is held up; two shares of one device get along; a PF and its VFs do not.

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


def _exclude(held: Grant, wanted: Grant) -> bool:
    if held.bdf == wanted.bdf:
        return held.exclusive or wanted.exclusive
    return wanted.parent == held.bdf or held.parent == wanted.bdf
