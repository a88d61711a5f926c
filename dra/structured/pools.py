"""Which devices the pools in the cluster offer: the newest generation of each, whether it is complete, and what counts it has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dra.classic import node_selector
from dra.kube.classic import NodeSelector
from dra.structured import amounts, expressions
from dra.structured.release import Release
from dra.structured.shapes import Json

Id = tuple[str, str, str]
"""Driver, pool, device."""
Counter = tuple[str, str, str, str, str]
"""Driver, pool, slice (up to 1.34, where devices and their counters share one; empty from 1.35 on), counter set, counter."""


class Candidate(msgspec.Struct):
    id: Id
    device: Json
    variable: dict[str, Any]
    """`device` in CEL."""
    taints: list[Json]
    node: str
    """Name of the only node it can be used on, empty for any."""

    def attribute(self, name: str) -> Any:
        """An attribute by its full name, as a value that compares; None if there is none."""
        domain, _, short = name.rpartition("/")
        value = self.variable["attributes"].get(domain or self.id[0], {}).get(short)
        return getattr(value, "text", value)


class Pool(msgspec.Struct):
    driver: str
    name: str
    complete: bool
    fault: str
    """Why it is invalid, or empty."""
    candidates: list[Candidate]
    counters: dict[Counter, int]
    """What there is in all, in billionths."""
    uses: dict[Id, dict[Counter, int]]
    """What each device takes of them, also those that this node cannot use."""


def gather(
    slices: Iterable[Json], node: str, taint_rules: Iterable[Json], release: Release, labels: Mapping[str, str] | None = None
) -> list[Pool]:
    """The pools as the scheduler sees them for this node.

    Before 1.35 only slices that match the node count towards completeness, and an incomplete pool still offers what is visible.

    Args:
        labels: the node's; its hostname, if none are known.
    """
    known = {"kubernetes.io/hostname": node} if labels is None else labels
    by_pool: dict[tuple[str, str], list[Json]] = {}
    for each in slices:
        spec = each["spec"]
        if release.minor >= 35 or (_matches(spec, node, known) and _offers(spec, release)):
            by_pool.setdefault((spec["driver"], spec["pool"]["name"]), []).append(each)
    rules = list(taint_rules) if release.has("DRADeviceTaintRules") else []
    pools = []
    order = sorted(by_pool) if release.minor >= 36 else list(by_pool)
    for driver, name in order:
        found = by_pool[driver, name]
        newest = max(each["spec"]["pool"].get("generation", 0) for each in found)
        current = [each for each in found if each["spec"]["pool"].get("generation", 0) == newest]
        current.sort(key=lambda each: str(each["metadata"]["name"]))
        complete = all(each["spec"]["pool"]["resourceSliceCount"] == len(current) for each in current)
        counters = {
            (driver, name, _book(each, release), entry["name"], key): amounts.quantity(value["value"])
            for each in current
            for entry in each["spec"].get("sharedCounters") or ()
            for key, value in entry["counters"].items()
        }
        devices = [(each, device) for each in current if _offers(each["spec"], release) for device in each["spec"].get("devices") or ()]
        uses = {
            (driver, name, device["name"]): {
                (driver, name, _book(each, release), use["counterSet"], key): amounts.quantity(value["value"])
                for use in device["consumesCounters"]
                for key, value in use["counters"].items()
            }
            for each, device in devices
            if device.get("consumesCounters")
        }
        pool = Pool(driver, name, complete, _fault(current, devices, counters, release), [], counters, uses)
        for each, device in devices:
            spec = each["spec"]
            if _matches(device if spec.get("perDeviceNodeSelection") else spec, node, known):
                pool.candidates.append(_candidate(driver, name, spec, device, rules, release))
        pools.append(pool)
    return pools


def _book(each: Json, release: Release) -> str:
    """Name of the slice whose counters its devices take, where that is not the whole pool."""
    return str(each["metadata"]["name"]) if release.minor <= 34 else ""


def _offers(spec: Json, release: Release) -> bool:
    """Whether the scheduler looks at a slice's devices: not at those it cannot count, nor from 1.35 on where counter sets are expected."""
    if not release.has("DRAPartitionableDevices"):
        return not spec.get("sharedCounters") and not spec.get("perDeviceNodeSelection")
    return release.minor <= 34 or not spec.get("sharedCounters")


def _fault(current: list[Json], devices: list[tuple[Json, Json]], counters: dict[Counter, int], release: Release) -> str:
    seen: set[str] = set()
    for _, device in devices:
        if device["name"] in seen and release.minor >= 32:
            return f"duplicate device name {device['name']}"
        seen.add(device["name"])
    if release.minor <= 34 or not release.has("DRAPartitionableDevices"):
        return ""
    sets = [entry["name"] for each in current for entry in each["spec"].get("sharedCounters") or ()]
    for number, name in enumerate(sets):
        if name in sets[:number]:
            return f"duplicate counter set name {name}"
    known = {key[3:] for key in counters}
    for _, device in devices:
        for use in device.get("consumesCounters") or ():
            if use["counterSet"] not in sets:
                return f"counter set {use['counterSet']} not found"
            for name in use["counters"]:
                if (use["counterSet"], name) not in known:
                    return f"counter {name} not found in counter set {use['counterSet']}"
    return ""


def _candidate(driver: str, pool: str, spec: Json, device: Json, rules: list[Json], release: Release) -> Candidate:
    taints = list(device.get("taints") or ()) if release.has("DRADeviceTaints") else []
    for rule in rules:
        chosen = rule["spec"].get("deviceSelector") or {}
        if all(chosen.get(key, value) == value for key, value in (("driver", driver), ("pool", pool), ("device", device["name"]))):
            taints.append(rule["spec"]["taint"])
    node = spec.get("nodeName") or device.get("nodeName") or ""
    return Candidate((driver, pool, device["name"]), device, expressions.device_variable(driver, device), taints, node)


def selects(selector: Json, node: str, labels: Mapping[str, str] | None = None) -> bool:
    """Whether a NodeSelector admits the node; of labels the hostname is known, if no others are given."""
    known = {"kubernetes.io/hostname": node} if labels is None else labels
    return node_selector.matches(msgspec.convert(selector, NodeSelector), node, known)


def _matches(scope: Json, node: str, labels: Mapping[str, str]) -> bool:
    if scope.get("allNodes") or scope.get("perDeviceNodeSelection"):
        return True
    if scope.get("nodeName"):
        return bool(scope["nodeName"] == node)
    return selects(scope.get("nodeSelector") or {}, node, labels)
