"""What makes the objects of resource.k8s.io/v1alpha2 valid, and what may not change any more (kk 1.28 to 1.30, validation.go)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tools.simcluster import names
from tools.simcluster.kinds import CLAIM, RESOURCE_CLASS, SCHEDULING, TEMPLATE, Json, Kind
from tools.simcluster.refusals import Cause

DELAYED: Final = "WaitForFirstConsumer"
IMMEDIATE: Final = "Immediate"
CONSUMERS: Final = 32
HANDLES: Final = 32
HANDLE_BYTES: Final = 16 << 10
NODES: Final = 128
"""Potential nodes, and unsuitable ones of each claim."""


def defaulted(kind: Kind, body: Json) -> Json:
    """With `allocationMode: WaitForFirstConsumer` where nothing is said."""
    spec = body.get("spec") or {}
    if kind is CLAIM:
        return {**body, "spec": {"allocationMode": DELAYED, **spec}}
    if kind is TEMPLATE:
        return {**body, "spec": {**spec, "spec": {"allocationMode": DELAYED, **(spec.get("spec") or {})}}}
    return body


def faults(kind: Kind, new: Json, old: Json | None) -> list[Cause]:
    match kind:
        case _ if kind == RESOURCE_CLASS:
            return _class_faults(new)
        case _ if kind == CLAIM:
            if old is None:
                return _spec_faults("spec", new.get("spec") or {})
            return _immutable("spec", new.get("spec"), old.get("spec")) + _status_faults(new, old)
        case _ if kind == TEMPLATE:
            if old is not None:
                return _immutable("spec", new.get("spec"), old.get("spec"))
            return _spec_faults("spec.spec", (new.get("spec") or {}).get("spec") or {})
        case _ if kind == SCHEDULING:
            return _scheduling_faults(new)
    return []


def _immutable(at: str, now: Any, was: Any) -> list[Cause]:
    return [] if now == was else [Cause(at, "Invalid value: field is immutable")]


def _driver_faults(at: str, name: str) -> list[Cause]:
    if not name:
        return [Cause(at, "Required value", "FieldValueRequired")]
    if len(name) > 63:
        return [Cause(at, "Too long: may not be longer than 63", "FieldValueTooLong")]
    # Upper case passes: the name is looked at in lower case.
    return [] if names.subdomain(name.lower()) else [Cause(at, f'Invalid value: "{name}": {names.SUBDOMAIN_RULE}')]


def _class_faults(body: Json) -> list[Cause]:
    found = _driver_faults("driverName", body.get("driverName") or "")
    found += _parameter_faults("parametersRef", body.get("parametersRef"))
    return found + _selector_faults("suitableNodes", body.get("suitableNodes"))


def _spec_faults(at: str, spec: Json) -> list[Cause]:
    name, mode = spec.get("resourceClassName") or "", spec.get("allocationMode")
    found = []
    if not name:
        found.append(Cause(f"{at}.resourceClassName", "Required value", "FieldValueRequired"))
    elif not names.subdomain(name):
        found.append(Cause(f"{at}.resourceClassName", f'Invalid value: "{name}": {names.SUBDOMAIN_RULE}'))
    found += _parameter_faults(f"{at}.parametersRef", spec.get("parametersRef"))
    if mode not in (DELAYED, IMMEDIATE):
        text = f'Unsupported value: "{mode}": supported values: "{IMMEDIATE}", "{DELAYED}"'
        found.append(Cause(f"{at}.allocationMode", text, "FieldValueNotSupported"))
    return found


def _parameter_faults(at: str, reference: Json | None) -> list[Cause]:
    if reference is None:
        return []
    return [Cause(f"{at}.{key}", "Required value", "FieldValueRequired") for key in ("kind", "name") if not reference.get(key)]


def _selector_faults(at: str, selector: Json | None) -> list[Cause]:
    if selector is None or selector.get("nodeSelectorTerms"):
        return []
    return [Cause(f"{at}.nodeSelectorTerms", "Required value: must have at least one node selector term", "FieldValueRequired")]


def _status_faults(new: Json, old: Json) -> list[Cause]:
    status, was = new.get("status") or {}, old.get("status") or {}
    allocation, before = status.get("allocation"), was.get("allocation")
    driver, deallocate = status.get("driverName") or "", bool(status.get("deallocationRequested"))
    found = _driver_faults("status.driverName", driver) if driver else []
    if allocation is not None:
        if before is None:
            found += _allocation_faults(allocation)
        else:
            found += _immutable("status.allocation", allocation, before)
            if driver:
                found += _immutable("status.driverName", driver, was.get("driverName") or "")
        if not driver:
            text = "Required value: must be specified when `allocation` is set"
            found.append(Cause("status.driverName", text, "FieldValueRequired"))
    found += _reservation_faults(new, old)
    if deallocate and allocation is None:
        found.append(_forbidden("status.deallocationRequested", "may not be set when `allocation` is not set"))
    if deallocate and status.get("reservedFor"):
        found.append(_forbidden("status.deallocationRequested", "deallocation cannot be requested while `reservedFor` is set"))
    if was.get("deallocationRequested") and not deallocate and allocation is not None:
        found.append(_forbidden("status.deallocationRequested", "may not be cleared when `allocation` is set"))
    return found


def _forbidden(at: str, why: str) -> Cause:
    return Cause(at, f"Forbidden: {why}", "FieldValueForbidden")


def _allocation_faults(allocation: Json) -> list[Cause]:
    handles = allocation.get("resourceHandles") or []
    at = "status.allocation.resourceHandles"
    found = [Cause(at, f"Too long: must have at most {HANDLES} items", "FieldValueTooLong")] if len(handles) > HANDLES else []
    for index, handle in enumerate(handles):
        if handle.get("driverName"):
            found += _driver_faults(f"{at}[{index}].driverName", handle["driverName"])
        if len((handle.get("data") or "").encode()) > HANDLE_BYTES:
            found.append(Cause(f"{at}[{index}].data", f"Too long: must have at most {HANDLE_BYTES} bytes", "FieldValueTooLong"))
    return found + _selector_faults("status.allocation.availableOnNodes", allocation.get("availableOnNodes"))


def _reservation_faults(new: Json, old: Json) -> list[Cause]:
    status, at = new.get("status") or {}, "status.reservedFor"
    reserved, before = status.get("reservedFor") or [], (old.get("status") or {}).get("reservedFor") or []
    if not reserved:
        return []
    found = []
    if len(reserved) > CONSUMERS:
        found.append(Cause(at, f"Too long: must have at most {CONSUMERS} items", "FieldValueTooLong"))
    for index, consumer in enumerate(reserved):
        found += [
            Cause(f"{at}[{index}].{key}", "Required value", "FieldValueRequired")
            for key in ("resource", "name", "uid")
            if not consumer.get(key)
        ]
    uids = [consumer.get("uid") for consumer in reserved]
    if len(set(uids)) != len(uids):
        found.append(Cause(at, "Duplicate value", "FieldValueDuplicate"))
    allocation = status.get("allocation")
    if allocation is None:
        found.append(_forbidden(at, "may not be specified when `allocated` is not set"))
    elif len(reserved) > 1 and not allocation.get("shareable"):
        found.append(_forbidden(at, "may not be reserved more than once"))
    added = set(uids) - {consumer.get("uid") for consumer in before}
    if added and (new["metadata"].get("deletionTimestamp") or status.get("deallocationRequested")):
        found.append(_forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
    return found


def _scheduling_faults(body: Json) -> list[Cause]:
    spec, listed = body.get("spec") or {}, (body.get("status") or {}).get("resourceClaims") or []
    found = _node_faults("spec.potentialNodes", spec.get("potentialNodes") or [])
    if (selected := spec.get("selectedNode")) and not names.subdomain(selected):
        found.append(Cause("spec.selectedNode", f'Invalid value: "{selected}": {names.SUBDOMAIN_RULE}'))
    seen: set[str] = set()
    for index, entry in enumerate(listed):
        at, name = f"status.claims[{index}]", entry.get("name") or ""
        if name in seen:
            found.append(Cause(at, f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        seen.add(name)
        found += _node_faults(f"{at}.unsuitableNodes", entry.get("unsuitableNodes") or [])
    return found


def _node_faults(at: str, nodes: Sequence[str]) -> list[Cause]:
    found = [Cause(at, f"Too long: must have at most {NODES} items", "FieldValueTooLong")] if len(nodes) > NODES else []
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        if node in seen:
            found.append(Cause(f"{at}[{index}]", f'Duplicate value: "{node}"', "FieldValueDuplicate"))
        elif not names.subdomain(node):
            found.append(Cause(f"{at}[{index}]", f'Invalid value: "{node}": {names.SUBDOMAIN_RULE}'))
        seen.add(node)
    return found
