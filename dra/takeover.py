"""Claims that Intel's own driver prepared, read from its checkpoint so that an upgrade disturbs no running pod.

Every format its releases wrote to `preparedClaims.json` is known: the versioned one (0.10.1 and later), the unversioned one of
0.8 to 0.10.0 (whose keys Go matched without regard to case), and the lists of 0.6/0.7 and 0.4/0.5. The classic driver of 0.3.0 kept the
lists of 0.4 in a custom resource, not on the node.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dra.errors import StateCorrupt
from dra.ledger import Change, Ledger
from dra.names import CDI_KIND, DRIVER_NAME, Bdf, BootId, ClaimUid, DeviceName, PoolName, bdf_of_device_name, claim_uid, device_name, is_bdf
from dra.records import Grant, Record

FILE: Final = "preparedClaims.json"
IMPORTED: Final = "preparedClaims.json.imported"
"""What FILE is renamed to once its claims are in our journal; renaming it back returns the node to Intel's driver."""
FOREIGN_CDI_FILE: Final = "intel.com-gpu.yaml"
"""Where Intel's driver keeps the CDI devices of those claims; never written or removed by us."""

STATE: Final = "GpuAllocationState"
"""Where 0.3.0 kept claims, instead of a file."""
_WHOLE: Final = 1000
"""Millicores of a card."""
_CHECKPOINT_KIND: Final = "PreparedClaimsCheckpoint"


class Imported(msgspec.Struct, frozen=True):
    records: tuple[Record, ...]
    refused: tuple[str, ...]
    """One sentence for each claim that could not be understood."""

    def adopt(self, ledger: Ledger) -> list[Change]:
        """The changes that bring them into a journal, where it does not know them."""
        return [ledger.put(record) for record in self.records if ledger.get(record.uid) is None]


def read(data: bytes, *, pool: PoolName, boot_id: BootId, driver: str = DRIVER_NAME) -> Imported:
    """Read a checkpoint of Intel's driver.

    Args:
        driver: its name at that time.

    Raises:
        StateCorrupt: it is not JSON or not a mapping of claims at all.
    """
    try:
        document = msgspec.json.decode(data or b"{}")
    except msgspec.DecodeError as error:
        raise StateCorrupt(f"{FILE}: not JSON ({error}); left as it is", reason="TakeoverUnreadable") from None
    if not isinstance(document, dict):
        raise StateCorrupt(f"{FILE}: not an object; left as it is", reason="TakeoverUnreadable")
    if document.get("kind") == _CHECKPOINT_KIND:
        claims, origin = document.get("PreparedClaims") or {}, str(document.get("apiVersion"))
    else:
        claims, origin = document, "unversioned"
    return imported(claims, origin, pool=pool, boot_id=boot_id, driver=driver)


def imported(claims: object, origin: str, *, pool: PoolName, boot_id: BootId, driver: str = DRIVER_NAME) -> Imported:
    """Claims by UID, each in any of the forms: as in a file, or in GpuAllocationState's `spec.preparedClaims` of 0.3.0."""
    records: list[Record] = []
    refused: list[str] = []
    for uid, body in claims.items() if isinstance(claims, dict) else ():
        try:
            records.append(_record(claim_uid(uid), body, pool, boot_id, origin, driver))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            refused.append(f"{FILE if origin != STATE else STATE}: claim {uid[:63]!r} is not understood: {error}")
    return Imported(tuple(records), tuple(refused))


def _record(uid: ClaimUid, body: object, pool: PoolName, boot_id: BootId, origin: str, driver: str) -> Record:
    entries = body
    if isinstance(body, dict):
        lower = _lower(body)
        if lower.get("err"):
            raise ValueError(f"its prepare had failed: {lower['err']}")
        entries = lower.get("prepareddevices", lower.get("devices"))
    if not isinstance(entries, list):
        raise ValueError("no list of devices")
    grants = tuple(grant for entry in entries if (grant := _grant(_lower(entry), pool, uid)) is not None)
    return Record(uid=uid, namespace="", name="", grants=grants, boot_id=boot_id, origin=f"intel:{origin}", driver=driver)


def _grant(entry: dict[str, Any], pool: PoolName, uid: ClaimUid) -> Grant | None:
    admin = bool(entry.get("adminaccess"))
    if isinstance(inner := entry.get("kubeletplugindevice"), dict):
        entry = _lower(inner)
    requests = entry.get("requests") or entry.get("request_names") or entry.get("requestnames") or []
    name = str(entry.get("devicename") or entry.get("device_name") or entry.get("uid") or entry.get("uuid") or "")
    cdi_ids = entry.get("cdideviceids") or entry.get("cdi_device_ids") or []
    bdf, device = _device(name)
    # Of a card held whole the classic releases recorded all that it has, of a shared one what was asked for.
    is_part = entry.get("type") != "vf" and entry.get("millicores", _WHOLE) < _WHOLE
    return Grant(
        requests=tuple(dict.fromkeys(str(request).partition("/")[0] for request in requests)),
        pool=PoolName(str(entry.get("poolname") or entry.get("pool_name") or pool)),
        device=device,
        bdf=bdf,
        parent=_device(parent)[0] if (parent := str(entry.get("parentuid") or "")) else None,
        admin=admin,
        share_id=entry.get("shareid") or (uid if is_part else None),
        cdi_ids=tuple(str(cdi_id) for cdi_id in cdi_ids) or (f"{CDI_KIND}={name}",),
    )


def _device(name: str) -> tuple[Bdf, DeviceName]:
    """`0000-03-00-0-0x56c0`, or `0000:03:00.0-0x56c0` up to 0.5."""
    if (bdf := bdf_of_device_name(name)) is not None:
        return bdf, DeviceName(name)
    address, _, device_id = name.partition("-")
    if is_bdf(address) and device_id:
        return Bdf(address), device_name(Bdf(address), device_id)
    raise ValueError(f"not a device name: {name!r}")


def _lower(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise TypeError("an entry is not an object")
    return {key.lower(): value for key, value in entry.items()}
