"""What makes a ResourceClaim, a ResourceClaimTemplate and a DeviceClass valid; and what may not change any more."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tools.simcluster import names
from tools.simcluster.kinds import CLAIM, Json, Kind
from tools.simcluster.refusals import Cause
from tools.simcluster.releases import Release

LIST: Final = 32
"""Requests, constraints, config entries, selectors, results."""
ALTERNATIVES: Final = 8
PARAMETER_BYTES: Final = 10 << 10
_SHARE: Final = ("driver", "pool", "device", "shareID")
"""What tells results apart."""


def defaulted(kind: Kind, body: Json) -> Json:
    """With `allocationMode: ExactCount` and `count: 1` where nothing is said."""
    spec = body.get("spec") or {}
    if kind is CLAIM:
        return {**body, "spec": _defaulted_spec(spec)}
    return {**body, "spec": {**spec, "spec": _defaulted_spec(spec.get("spec") or {})}}


def _defaulted_spec(spec: Json) -> Json:
    devices = spec.get("devices") or {}
    requests = devices.get("requests")
    if not isinstance(requests, list):
        return spec
    new = []
    for request in requests:
        complete = dict(request)
        if request.get("exactly"):
            complete["exactly"] = _defaulted_request(request["exactly"])
        if request.get("firstAvailable"):
            complete["firstAvailable"] = [_defaulted_request(each) for each in request["firstAvailable"]]
        new.append(complete)
    return {**spec, "devices": {**devices, "requests": new}}


def _defaulted_request(exactly: Json) -> Json:
    exactly = {"allocationMode": "ExactCount", **exactly}
    if exactly["allocationMode"] == "ExactCount" and not exactly.get("count"):
        exactly["count"] = 1
    return exactly


def wants_admin_access(kind: Kind, body: Json) -> bool:
    return any((request.get("exactly") or {}).get("adminAccess") for request in _claim_spec(kind, body).get("requests") or ())


def _claim_spec(kind: Kind, body: Json) -> Json:
    spec = body.get("spec") or {}
    spec = spec if kind is CLAIM else spec.get("spec") or {}
    return spec.get("devices") or {}


def faults(kind: Kind, new: Json, old: Json | None, release: Release) -> list[Cause]:
    root = "spec.devices" if kind is CLAIM else "spec.spec.devices"
    if old is not None:
        found = [] if new.get("spec") == old.get("spec") else [Cause("spec", "Invalid value: field is immutable")]
        return found + (_status_faults(new, old, release) if kind is CLAIM else [])
    devices = _claim_spec(kind, new)
    found = []
    for name in ("requests", "constraints", "config"):
        if len(devices.get(name) or ()) > LIST:
            text = f"Too many: {len(devices[name])}: must have at most {LIST} items"
            found.append(Cause(f"{root}.{name}", text, "FieldValueTooMany"))
    known: set[str] = set()
    for index, request in enumerate(devices.get("requests") or ()):
        at = f"{root}.requests[{index}]"
        name = request.get("name") or ""
        if not names.label(name):
            found.append(Cause(f"{at}.name", f'Invalid value: "{name}": {names.LABEL_RULE}'))
        if name in known:
            found.append(Cause(f"{at}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        known.add(name)
        alternatives = request.get("firstAvailable") or []
        if bool(request.get("exactly")) == bool(alternatives):
            found.append(Cause(at, "Invalid value: exactly one of `exactly` or `firstAvailable` is required"))
        if len(alternatives) > ALTERNATIVES:
            text = f"Too many: {len(alternatives)}: must have at most {ALTERNATIVES} items"
            found.append(Cause(f"{at}.firstAvailable", text, "FieldValueTooMany"))
        if request.get("exactly"):
            found += _request_faults(f"{at}.exactly", request["exactly"])
        for sub, alternative in enumerate(alternatives):
            if not names.label(alternative.get("name") or ""):
                found.append(Cause(f"{at}.firstAvailable[{sub}].name", f"Invalid value: {names.LABEL_RULE}"))
            known.add(f"{name}/{alternative.get('name')}")
            found += _request_faults(f"{at}.firstAvailable[{sub}]", alternative)
    for name in ("constraints", "config"):
        for index, entry in enumerate(devices.get(name) or ()):
            for request in entry.get("requests") or ():
                if request not in known:
                    text = f'Invalid value: "{request}": must be the name of a request in the claim'
                    found.append(Cause(f"{root}.{name}[{index}].requests", text))
    for index, constraint in enumerate(devices.get("constraints") or ()):
        found += _constraint_faults(f"{root}.constraints[{index}]", constraint, release)
    return found + _config_faults(f"{root}.config", devices.get("config") or [], release)


def _constraint_faults(at: str, constraint: Json, release: Release) -> list[Cause]:
    """Where both attributes are given only the first is looked at."""
    said = next((name for name in ("matchAttribute", "distinctAttribute") if constraint.get(name)), "")
    if not said and release.has("DRAConsumableCapacity"):
        text = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [Cause(at, f"Required value: {text}", "FieldValueRequired")]
    if not said:
        return [Cause(f"{at}.matchAttribute", "Required value", "FieldValueRequired")]
    domain, _, name = constraint[said].rpartition("/")
    if not names.subdomain(domain, 63) or not names.c_identifier(name):
        return [Cause(f"{at}.{said}", f'Invalid value: "{constraint[said]}": must be <domain>/<C identifier>')]
    return []


def _request_faults(at: str, request: Json) -> list[Cause]:
    found = []
    if not request.get("deviceClassName"):
        found.append(Cause(f"{at}.deviceClassName", "Required value", "FieldValueRequired"))
    mode, count = request.get("allocationMode"), request.get("count", 0)
    if mode not in ("ExactCount", "All"):
        text = f'Unsupported value: "{mode}": supported values: "All", "ExactCount"'
        found.append(Cause(f"{at}.allocationMode", text, "FieldValueNotSupported"))
    if (mode == "All" and count) or (mode == "ExactCount" and count <= 0):
        found.append(Cause(f"{at}.count", f"Invalid value: {count}: must be greater than zero, or unset for `All`"))
    return found + _selector_faults(f"{at}.selectors", request.get("selectors") or [])


def _selector_faults(at: str, selectors: list[Json]) -> list[Cause]:
    from dra.structured import expressions

    found = []
    if len(selectors) > LIST:
        found.append(Cause(at, f"Too many: {len(selectors)}: must have at most {LIST} items", "FieldValueTooMany"))
    for index, selector in enumerate(selectors):
        text = (selector.get("cel") or {}).get("expression", "")
        where = f"{at}[{index}].cel.expression"
        if not text:
            found.append(Cause(where, "Required value", "FieldValueRequired"))
        elif len(text.encode()) > PARAMETER_BYTES:
            found.append(Cause(where, f"Too long: may not be more than {PARAMETER_BYTES} bytes", "FieldValueTooLong"))
        elif (why := expressions.fault(text)) is not None:
            found.append(Cause(where, f'Invalid value: "{text}": compilation failed: {why}'))
    return found


def _config_faults(at: str, config: list[Json], release: Release) -> list[Cause]:
    found = []
    for index, entry in enumerate(config):
        opaque: Any = entry.get("opaque")
        where = f"{at}[{index}]"
        if not isinstance(opaque, dict):
            found.append(Cause(where, "Required value: exactly one configuration is required", "FieldValueRequired"))
            continue
        if not names.subdomain(opaque.get("driver", ""), 63):
            found.append(Cause(f"{where}.opaque.driver", f"Invalid value: {names.SUBDOMAIN_RULE}"))
        if not isinstance(opaque.get("parameters"), dict):
            found.append(Cause(f"{where}.opaque.parameters", "Invalid value: must be an object"))
        elif release.minor >= 32 and len(msgspec.json.encode(opaque["parameters"])) > PARAMETER_BYTES:
            text = f"Too long: may not be more than {PARAMETER_BYTES} bytes"
            found.append(Cause(f"{where}.opaque.parameters", text, "FieldValueTooLong"))
    return found


def class_faults(body: Json, release: Release) -> list[Cause]:
    spec = body.get("spec") or {}
    config = spec.get("config") or []
    found = [Cause("spec.config", "Too many: must have at most 32 items", "FieldValueTooMany")] if len(config) > LIST else []
    return found + _selector_faults("spec.selectors", spec.get("selectors") or []) + _config_faults("spec.config", config, release)


def _share_faults(at: str, entry: Json) -> list[Cause]:
    share = entry.get("shareID")
    if share is None or names.uid(share):
        return []
    return [Cause(at, f'Invalid value: "{share}": uid must be in RFC 4122 normalized form')]


def _status_faults(new: Json, old: Json, release: Release) -> list[Cause]:
    status, was = new.get("status") or {}, old.get("status") or {}
    allocation, before = status.get("allocation"), was.get("allocation")
    found = []
    if allocation and before and allocation != before:
        found.append(Cause("status.allocation", "Invalid value: field is immutable"))
    reserved = status.get("reservedFor") or []
    most = 256 if release.minor >= 32 else 32
    if len(reserved) > most:
        found.append(Cause("status.reservedFor", f"Too many: {len(reserved)}: must have at most {most} items", "FieldValueTooMany"))
    if reserved and not allocation:
        found.append(Cause("status.reservedFor", "Forbidden: may not be specified when `allocated` is not set", "FieldValueForbidden"))
    uids = [entry.get("uid") for entry in reserved]
    if len(set(uids)) != len(uids):
        found.append(Cause("status.reservedFor", "Duplicate value", "FieldValueDuplicate"))
    added = [uid for uid in uids if uid not in {entry.get("uid") for entry in was.get("reservedFor") or ()}]
    if added and new["metadata"].get("deletionTimestamp"):
        text = "Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        found.append(Cause("status.reservedFor", text, "FieldValueForbidden"))
    results: list[Json] = (allocation or {}).get("devices", {}).get("results") or []
    if not before:
        for index, result in enumerate(results):
            found += _share_faults(f"status.allocation.devices.results[{index}].shareID", result)
    allocated = [tuple(result.get(key) for key in _SHARE) for result in results]
    for index, device in enumerate(status.get("devices") or ()):
        at = f"status.devices[{index}]"
        found += _share_faults(f"{at}.shareID", device)
        if tuple(device.get(key) for key in _SHARE) not in allocated:
            found.append(Cause(at, "Invalid value: must be an allocated device in the claim"))
        if len(device.get("conditions") or ()) > 8:
            found.append(Cause(f"{at}.conditions", "Too many: must have at most 8 items", "FieldValueTooMany"))
        if device.get("data") is not None and len(msgspec.json.encode(device["data"])) > PARAMETER_BYTES:
            found.append(Cause(f"{at}.data", f"Too long: may not be more than {PARAMETER_BYTES} bytes", "FieldValueTooLong"))
    return found
