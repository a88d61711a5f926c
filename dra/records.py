"""What the journal keeps of a claim: which devices it holds and under which names the container runtime knows them.

The schema is ours and versioned; unknown fields of a newer driver are kept and written back, so going back a version loses nothing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dra.claims import Stage
from dra.classic import handle
from dra.names import DRIVER_NAME, Bdf, BootId, ClaimUid, DeviceName, PoolName

VERSION: Final = 1
"""Raised only when an older driver would misread a record; fields are added without raising it (VF layouts, classic handles)."""


class Grant(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One allocated device of a claim."""

    requests: tuple[str, ...]
    """Base names of the requests it answers (`gpu`, never `gpu/large`); empty means all of the claim's."""
    pool: PoolName
    device: DeviceName
    bdf: Bdf
    parent: Bdf | None = None
    """The PF, when the device is a VF: a PF and its VFs exclude each other."""
    admin: bool = False
    """Admin access: sees the device, does not hold it, never changes hardware."""
    monitor: bool = False
    """Management engine and telemetry nodes were asked for."""
    share_id: str | None = None
    driver: str = ""
    """The kernel driver the claim wants it bound to, `vfio-pci`; empty for its DRM driver."""
    layout: handle.Layout = ()
    """Of a VF that a controller chose: how its card is, or is to be, cut for it, as (profile, how many), VF 1 first. Empty: the settings
    say it, or the VF was there."""
    cdi_ids: tuple[str, ...] = ()
    """Fully qualified CDI names given to the kubelet: the same for the claim's whole life."""

    @property
    def exclusive(self) -> bool:
        return not self.admin and self.share_id is None

    @property
    def card(self) -> Bdf:
        """The physical function: the device itself, or the one it is a VF of."""
        return self.parent or self.bdf


class Record(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One claim, as last written."""

    uid: ClaimUid
    namespace: str
    name: str
    stage: Stage = Stage.GRANTED
    """GRANTED or RELEASING; the others are seen, never written."""
    grants: tuple[Grant, ...] = ()
    boot_id: BootId = BootId("")
    """The boot in which it was granted."""
    granted_at: float = 0.0
    """Seconds since the epoch, for people."""
    origin: str | None = None
    """The file format it was taken over from, when another driver prepared the claim."""
    pod_claim: str = ""
    """What the pod calls the claim, if it was made from a template."""
    driver: str = DRIVER_NAME
    """The driver's name in the allocation: the classic one for claims that a controller allocated."""
    version: int = msgspec.field(name="v", default=VERSION)

    def same_holdings(self, grants: tuple[Grant, ...]) -> bool:
        """Whether `grants` are what this record grants already, so that it may be answered again as it stands.

        A record taken over from another driver may lack requests and pools; its devices decide.
        """
        if self.origin is not None:
            return sorted((g.device, g.admin) for g in self.grants) == sorted((g.device, g.admin) for g in grants)
        return [_holding(grant) for grant in self.grants] == [_holding(grant) for grant in grants]


def _holding(grant: Grant) -> tuple[object, ...]:
    return grant.requests, grant.pool, grant.device, grant.admin, grant.monitor, grant.share_id, grant.driver, grant.layout


_KNOWN: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Record))


class Kept(msgspec.Struct, frozen=True):
    """A record and the fields of it that this version does not know."""

    record: Record
    extra: dict[str, Any] = {}


def to_json(kept: Kept) -> bytes:
    """One line of JSON, deterministic."""
    return msgspec.json.encode(kept.extra | msgspec.to_builtins(kept.record), order="sorted")


def from_json(data: bytes) -> Kept:
    """The inverse of `to_json`.

    Raises:
        ValueError: not JSON, not a record, or of a version that means something else.
    """
    raw = msgspec.json.decode(data)
    if not isinstance(raw, dict):
        raise ValueError("a record is a JSON object")
    version = raw.get("v")
    if isinstance(version, int) and version > VERSION:
        raise ValueError(f"written by a newer driver (record version {version}, this one knows {VERSION})")
    record = msgspec.convert(raw, Record)
    if record.stage not in (Stage.GRANTED, Stage.RELEASING):
        raise ValueError(f"stage {record.stage} is never recorded")
    return Kept(record, {key: value for key, value in raw.items() if key not in _KNOWN})
