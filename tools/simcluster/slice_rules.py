"""What makes a ResourceSlice valid, minor by minor (pkg/apis/resource/validation of Kubernetes 1.31 to 1.37)."""

from __future__ import annotations

from typing import Final

from tools.simcluster import capacity_rules, counter_rules, names
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Cause
from tools.simcluster.releases import Release

DEVICES: Final = 128
DEVICES_ADVANCED: Final = 64
"""Where a device has taints, consumes counters or has list attributes."""
ATTRIBUTES: Final = 32
"""And capacities, together."""
EFFECTS: Final = ("NoSchedule", "NoExecute")
_VALUES: Final = ("int", "bool", "string", "version")
_LISTS: Final = ("ints", "bools", "strings", "versions")


def defaulted(new: Json, old: Json | None, now: str) -> Json:
    """With `timeAdded` in every taint. A taint that was there keeps its time only if the writer sends it, as on the real server."""
    del old
    devices = (new.get("spec") or {}).get("devices")
    if not isinstance(devices, list) or not any(isinstance(device, dict) and device.get("taints") for device in devices):
        return new
    timed = [
        {**device, "taints": [{**taint, "timeAdded": taint.get("timeAdded") or now} for taint in device["taints"]]}
        if device.get("taints")
        else device
        for device in devices
    ]
    return {**new, "spec": {**new["spec"], "devices": timed}}


def faults(new: Json, old: Json | None, release: Release) -> list[Cause]:
    spec = new.get("spec") or {}
    found: list[Cause] = []
    driver, pool = spec.get("driver", ""), spec.get("pool") or {}
    if not names.subdomain(driver.lower(), 63):
        found.append(Cause("spec.driver", f'Invalid value: "{driver}": {names.SUBDOMAIN_RULE}'))
    pool_name = pool.get("name", "")
    if len(pool_name) > 253 or not all(names.subdomain(part) for part in pool_name.split("/")):
        found.append(Cause("spec.pool.name", f'Invalid value: "{pool_name}": {names.SUBDOMAIN_RULE}'))
    if pool.get("resourceSliceCount", 0) <= 0:
        found.append(
            Cause("spec.pool.resourceSliceCount", f"Invalid value: {pool.get('resourceSliceCount', 0)}: must be greater than zero")
        )
    if pool.get("generation", 0) < 0:
        found.append(Cause("spec.pool.generation", "Invalid value: must be greater than or equal to zero"))
    found += _scope(spec)
    if old is not None:
        for path, value, was in (
            ("spec.driver", driver, old["spec"].get("driver")),
            ("spec.pool.name", pool_name, old["spec"]["pool"].get("name")),
            ("spec.nodeName", spec.get("nodeName", ""), old["spec"].get("nodeName", "")),
        ):
            if value != was:
                found.append(Cause(path, f'Invalid value: "{value}": field is immutable'))
    return found + _devices(spec, (old or {}).get("spec") or {}, release) + counter_rules.faults(spec, release)


def _scope(spec: Json) -> list[Cause]:
    chosen = [name for name in ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection") if spec.get(name)]
    if len(chosen) != 1:
        text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
        return [Cause("spec", f"Invalid value: {text}" if chosen else f"Required value: {text}")]
    if spec.get("nodeName") and not names.subdomain(spec["nodeName"]):
        return [Cause("spec.nodeName", f'Invalid value: "{spec["nodeName"]}": {names.SUBDOMAIN_RULE}')]
    if spec.get("nodeSelector") and len(spec["nodeSelector"].get("nodeSelectorTerms") or ()) != 1:
        return [Cause("spec.nodeSelector.nodeSelectorTerms", "Invalid value: must have exactly one node selector term")]
    return []


def _devices(spec: Json, old: Json, release: Release) -> list[Cause]:
    devices: list[Json] = spec.get("devices") or []
    advanced = release.minor >= 35 and any(device.get("taints") or device.get("consumesCounters") for device in devices)
    advanced |= release.minor >= 36 and any(
        name in value for device in devices for value in (device.get("attributes") or {}).values() for name in _LISTS
    )
    limit = DEVICES_ADVANCED if advanced else DEVICES
    found: list[Cause] = []
    if len(devices) > limit:
        found.append(Cause("spec.devices", f"Too many: {len(devices)}: must have at most {limit} items", "FieldValueTooMany"))
    were = {device["name"]: device.get("capacity") or {} for device in old.get("devices") or ()}
    seen: set[str] = set()
    for index, device in enumerate(devices):
        at = f"spec.devices[{index}]"
        name = device.get("name") or ""
        if name in seen:
            where = at if release.minor >= 35 else f"{at}.name"
            found.append(Cause(where, f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        seen.add(name)
        if not names.label(name):
            found.append(Cause(f"{at}.name", f'Invalid value: "{name}": {names.LABEL_RULE}'))
        attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
        if len(attributes) + len(capacity) > ATTRIBUTES:
            total = len(attributes) + len(capacity)
            found.append(Cause(at, f"Invalid value: {total}: the total number of attributes and capacities must not exceed {ATTRIBUTES}"))
        for key, value in attributes.items():
            found += _qualified(f"{at}.attributes", key) + _attribute(f"{at}.attributes[{key}]", value)
        if release.minor <= 36 or capacity != were.get(name):
            shared = bool(device.get("allowMultipleAllocations"))
            for key, value in capacity.items():
                found += _qualified(f"{at}.capacity", key)
                found += capacity_rules.faults(f"{at}.capacity[{key}]", value, release, shared=shared)
        found += _scope_of_device(at, device, spec)
        found += _taints(at, device.get("taints") or [], release) + _conditions(at, device)
    return found


def _scope_of_device(at: str, device: Json, spec: Json) -> list[Cause]:
    chosen = [name for name in ("nodeName", "nodeSelector", "allNodes") if device.get(name)]
    rule = "`nodeName`, `nodeSelector`"
    if not spec.get("perDeviceNodeSelection"):
        text = f"{rule} and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        return [Cause(at, f"Invalid value: null: {text}")] if chosen else []
    if len(chosen) == 1:
        return []
    text = f"exactly one of {rule}, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
    return [Cause(at, f"Invalid value: {text}") if chosen else Cause(at, f"Required value: {text}", "FieldValueRequired")]


def _qualified(at: str, key: str) -> list[Cause]:
    domain, slash, name = key.rpartition("/")
    if slash and not names.subdomain(domain, 63):
        return [Cause(at, f'Invalid value: "{domain}": {names.SUBDOMAIN_RULE}')]
    if not names.c_identifier(name):
        return [Cause(at, f'Invalid value: "{name}": a valid C identifier of at most 32 characters is required')]
    return []


def _attribute(at: str, value: Json) -> list[Cause]:
    said = [name for name in (*_VALUES, *_LISTS) if value.get(name) is not None]
    if len(said) != 1:
        why = "exactly one value must be specified"
        return [Cause(at, f"Required value: {why}", "FieldValueRequired") if not said else Cause(at, f"Invalid value: {why}")]
    content = value[said[0]]
    found = []
    for text in content if isinstance(content, list) else [content]:
        if said[0].startswith(("string", "version")):
            if not isinstance(text, str):
                found.append(Cause(f"{at}.{said[0]}", "Invalid value: must be a string"))
            elif len(text.encode()) > 64:
                found.append(Cause(f"{at}.{said[0]}", "Too long: may not be more than 64 bytes", "FieldValueTooLong"))
            elif said[0].startswith("version") and not names.semver(text):
                why = f'Invalid value: "{text}": must be a string compatible with semver.org spec 2.0.0'
                found.append(Cause(f"{at}.{said[0]}", why))
        elif said[0] in ("int", "ints") and (isinstance(text, bool) or not isinstance(text, int) or not -(2**63) <= text < 2**63):
            found.append(Cause(f"{at}.{said[0]}", "Invalid value: must be a 64-bit integer"))
    return found


def _taints(at: str, taints: list[Json], release: Release) -> list[Cause]:
    limit = 16 if release.minor >= 35 else 4
    effects = (*EFFECTS, "None") if release.minor >= 35 else EFFECTS
    found = []
    if len(taints) > limit:
        found.append(Cause(f"{at}.taints", f"Too many: {len(taints)}: must have at most {limit} items", "FieldValueTooMany"))
    for index, taint in enumerate(taints):
        where = f"{at}.taints[{index}]"
        if not names.label_key(taint.get("key", "")):
            found.append(Cause(f"{where}.key", f'Invalid value: "{taint.get("key", "")}": name part must be a qualified name'))
        if not names.label_value(taint.get("value", "")):
            found.append(Cause(f"{where}.value", f'Invalid value: "{taint["value"]}": a valid label value is required'))
        if taint.get("effect") not in effects:
            supported = ", ".join(f'"{effect}"' for effect in effects)
            text = f'Unsupported value: "{taint.get("effect", "")}": supported values: {supported}'
            found.append(Cause(f"{where}.effect", text, "FieldValueNotSupported"))
    return found


def _conditions(at: str, device: Json) -> list[Cause]:
    binding, failure = device.get("bindingConditions") or [], device.get("bindingFailureConditions") or []
    if bool(binding) != bool(failure):
        return [Cause(at, "Invalid value: bindingConditions and bindingFailureConditions must be set together")]
    if len(binding) > 4 or len(failure) > 4:
        return [Cause(at, "Too many: must have at most 4 items", "FieldValueTooMany")]
    if set(binding) & set(failure):
        return [Cause(at, "Invalid value: bindingConditions and bindingFailureConditions must not overlap")]
    return []
