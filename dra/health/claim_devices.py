"""What a claim's `status.devices` says of our devices (KEP-4817): which hardware was really given, and whether it can be used now.

The list is everybody's, each entry its driver's: what is made here is for a server-side apply of ours alone. An entry stands until the
claim is deallocated, when the API server clears the list: nothing is taken back at unprepare, which comes just before.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dra.carvings import Carving
from dra.devices import Gpu
from dra.health.told import DeviceHealth, Level, Told
from dra.ledger import Ledger
from dra.names import Bdf, DeviceName
from dra.records import Grant, Record

Json = dict[str, Any]

CONDITION: Final = "Ready"
_LONGEST_MESSAGE_BYTES: Final = 1024
"""Of 32 KiB that a condition may have: what is longer is for the log."""
_KEY: Final = ("driver", "pool", "device", "shareID")
"""What tells entries apart, and what each has of the result it is about."""


def seen(record: Record, gpus: Mapping[DeviceName, Gpu], told: Told) -> object:
    """What `entries` depends on besides the claim itself: while it is equal, there is nothing to write."""
    return record.grants, [(_bound(gpus.get(grant.device)), told.get(grant.device)) for grant in record.grants]


def entries(record: Record, claim: Json, *, ledger: Ledger, gpus: Mapping[DeviceName, Gpu], told: Told, now: float) -> list[Json]:
    """The whole of our entries for a claim.

    A device is told of when it has all that prepare promises, and from then on whatever becomes of it.

    Args:
        claim: as the API server has it: its results say what may be told, its entries since when things are as they are.
        now: seconds since the epoch.
    """
    allocated = {key(result) for result in _results(claim)}
    before = {key(entry): entry for entry in _entries(claim)}
    found = []
    for grant in record.grants:
        entry = _identity(record, grant)
        is_new, gpu = key(entry) not in before, gpus.get(grant.device)
        if key(entry) not in allocated or (is_new and _missing(grant, gpu)):
            continue
        old = {} if is_new else before[key(entry)]
        condition = _dated(_condition(grant, gpu, told.get(grant.device)), old, now)
        data = _data(grant, gpu, ledger.carvings) if gpu is not None else old.get("data")
        found.append(entry | {"conditions": [condition]} | ({"data": data} if data else {}))
    return found


def stand(claim: Json, wanted: Iterable[Json]) -> bool:
    """Whether the claim has these entries; what others have added to them is theirs."""
    there = {key(entry): entry for entry in _entries(claim)}
    return all(
        (old := there.get(key(entry))) is not None
        and old.get("data") == entry.get("data")
        and all(condition in (old.get("conditions") or ()) for condition in entry["conditions"])
        for entry in wanted
    )


def is_kept(claim: Json, wanted: Iterable[Json]) -> bool:
    """Whether an answered claim has entries for these devices: a server whose feature gate is off drops them without a word."""
    return {key(entry) for entry in wanted} <= {key(entry) for entry in _entries(claim)}


def is_of_node(claim: Json, node: str) -> bool:
    """Whether the allocation names this node and nothing else: then API servers from 1.36 on count the node's plugin as its own."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    terms: list[Json] = (allocation.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    fields = [field for term in terms for field in term.get("matchFields") or ()]
    own = {"key": "metadata.name", "operator": "In", "values": [node]}
    return len(terms) == 1 and not terms[0].get("matchExpressions") and fields == [own]


def key(part: Json) -> tuple[str, ...]:
    """Of a result or an entry."""
    return tuple(part.get(name) or "" for name in _KEY)


def _results(claim: Json) -> Iterable[Json]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results: Iterable[Json] = (allocation.get("devices") or {}).get("results") or ()
    return results


def _entries(claim: Json) -> Iterable[Json]:
    entries: Iterable[Json] = (claim.get("status") or {}).get("devices") or ()
    return entries


def _identity(record: Record, grant: Grant) -> Json:
    share = {"shareID": grant.share_id} if grant.share_id is not None else {}
    return {"driver": record.driver, "pool": grant.pool, "device": grant.device, **share}


def _data(grant: Grant, gpu: Gpu, carvings: Mapping[Bdf, Carving]) -> Json:
    """In the words of the slices' attributes; a few hundred bytes of the 10 KiB that there may be."""
    said: Json = {"pciAddress": gpu.bdf, "pciId": gpu.device, "driver": gpu.driver or ""}
    if gpu.parent is not None and gpu.vf_index is not None:
        said |= {"pfPciAddress": gpu.parent, "vfIndex": gpu.vf_index}
        carving = carvings.get(gpu.parent)
        if carving is not None and gpu.vf_index <= len(carving.profiles):
            said["profile"] = carving.profiles[gpu.vf_index - 1].name
    if grant.admin:
        said["adminAccess"] = True
    return said


def _bound(gpu: Gpu | None) -> object:
    return (gpu.driver, gpu.parent, gpu.vf_index) if gpu is not None else None


def _missing(grant: Grant, gpu: Gpu | None) -> tuple[str, str] | None:
    """Reason and sentence, if a device has not what prepare promises."""
    if gpu is None:
        return "Absent", f"{grant.bdf} is not on the bus"
    if grant.driver and gpu.driver != grant.driver:
        return "NotBound", f"{grant.bdf} is bound to {gpu.driver or 'no driver'}, not to {grant.driver}"
    return None


def _condition(grant: Grant, gpu: Gpu | None, health: DeviceHealth | None) -> Json:
    status, reason, text = _standing(health)
    if (missing := _missing(grant, gpu)) is not None:
        status, (reason, text) = "False", missing
    message = text.encode()[:_LONGEST_MESSAGE_BYTES].decode(errors="ignore")
    return {"type": CONDITION, "status": status, "reason": reason, "message": message}


def _standing(health: DeviceHealth | None) -> tuple[str, str, str]:
    """Status, reason and message; a device that nobody watches is taken for well."""
    if health is None:
        return "True", "DeviceReady", ""
    match health.level:
        case Level.OK:
            return "True", "DeviceReady", ""
        case Level.DEGRADED:
            return "True", "Degraded", health.text  # it works
        case Level.FAILED:
            return "False", "Failed", health.text
        case Level.UNKNOWN:
            return "Unknown", "HealthUnknown", health.text


def _dated(condition: Json, old: Json, now: float) -> Json:
    """With the time of the last change of its status, which a new reason is not."""
    before: Json = next((each for each in old.get("conditions") or () if each["type"] == CONDITION), {})
    if before.get("status") == condition["status"] and before.get("lastTransitionTime"):
        at: str = before["lastTransitionTime"]
    else:
        at = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return condition | {"lastTransitionTime": at}
