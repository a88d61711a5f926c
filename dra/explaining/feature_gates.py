"""Feature gates of the API server that the driver has a use for: which are on, as far as it can be seen, and whether one is missed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from dra.explaining.checks import Finding, Verdict
from dra.explaining.cluster import Cluster, Json
from dra.names import DRIVER_NAME

METRIC: Final = re.compile(r'^kubernetes_feature_enabled\{[^}]*name="(\w+)"[^}]*\} ([01])', re.MULTILINE)
"""Of the API server's /metrics."""
_CHECK: Final = "feature gates"
_PAGE: Final = "docs/cluster-setup.md"


class Gate(msgspec.Struct, frozen=True):
    name: str
    since: int
    """Minor it came with."""
    default: int
    """Minor from which it is on by default."""
    reason: str
    """Of the driver's Event about an API server without it; empty if there is none."""
    used: Callable[[Cluster], bool]
    """Whether something in the cluster has what the gate keeps: then it is on."""
    wanted: Callable[[Cluster], bool]
    """Whether something in the cluster needs it, by the looks of what does not depend on it."""


def _devices(cluster: Cluster) -> Iterator[Json]:
    for body in cluster.slices:
        if body["spec"]["driver"] == DRIVER_NAME:
            yield from body["spec"].get("devices") or ()


def _requests(cluster: Cluster) -> Iterator[Json]:
    for claim in cluster.claims:
        for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
            yield request.get("exactly") or {}


def _nothing(_cluster: Cluster) -> bool:
    return False


# As docs/cluster-setup.md has them.
GATES: Final = (
    Gate("DRAAdminAccess", 32, 34, "", lambda c: any(each.get("adminAccess") for each in _requests(c)), _nothing),
    Gate(
        "DRAPartitionableDevices",
        33,
        36,
        "CountersNotSupported",
        lambda c: any(device.get("consumesCounters") for device in _devices(c)),
        _nothing,
    ),
    Gate(
        "DRADeviceTaints", 33, 36, "TaintsNotSupported", lambda c: any(d.get("taints") for d in _devices(c)), lambda c: bool(c.taint_rules)
    ),
    Gate(
        "DRAConsumableCapacity",
        34,
        36,
        "SharingNotSupported",
        lambda c: any(device.get("allowMultipleAllocations") for device in _devices(c)),
        _nothing,
    ),
    Gate("DRAExtendedResource", 34, 36, "", lambda c: any(body["spec"].get("extendedResourceName") for body in c.classes), _nothing),
    Gate("ResourceHealthStatus", 34, 36, "", _nothing, _nothing),
)


def read(metrics: str) -> dict[str, bool]:
    """Gate -> whether it is on, of those that the release still has."""
    return {name: value == "1" for name, value in METRIC.findall(metrics)}


def findings(cluster: Cluster, told: Mapping[str, bool] | None) -> Iterator[Finding]:
    """Args:
    told: by the API server's metrics; None if they could not be read.
    """
    if cluster.is_classic or not cluster.api:
        return  # no gate of these is there; without the API that is what is to be told
    if told is not None and not told.get("DynamicResourceAllocation", True):
        yield Finding(Verdict.PROBLEM, _CHECK, "", "DynamicResourceAllocation is off", f"switch it on: {_PAGE}")
    minor = cluster.habits.minor
    states: dict[str, list[str]] = {"on": [], "off, which nothing here misses": []}
    unseen: list[str] = []
    for gate in GATES:
        if gate.since > minor:
            continue
        said = any(event.get("reason") == gate.reason for event in cluster.events)
        on = told.get(gate.name) if told is not None else None
        if on is None and gate.used(cluster):
            on = True
        if on is None and said:
            on = False
        if on is None:
            unseen.append(f"{gate.name} (by default {'on' if minor >= gate.default else 'off'})")
        elif on:
            states["on"].append(gate.name)
        elif said or gate.used(cluster) or gate.wanted(cluster):
            seen = f"{gate.name} is off, and is missed" + (f": Event {gate.reason}" if said else "")
            yield Finding(Verdict.WARNING, _CHECK, "", seen, f"switch it on in all its components: {_PAGE}")
        else:
            states["off, which nothing here misses"].append(gate.name)
    known = [f"{state}: {', '.join(names)}" for state, names in states.items() if names]
    if known:
        yield Finding(Verdict.OK, _CHECK, "", "; ".join(known))
    if unseen:
        yield Finding(Verdict.UNKNOWN, _CHECK, "", f"not seen: {', '.join(unseen)}", "kubectl get --raw /metrics | grep feature_enabled")
