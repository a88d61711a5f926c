"""What is wrong in a cluster with structured DRA that no single node can see: GPUs that are not offered, claims that hang on dead nodes.

Most of it heals by itself within seconds (a plugin starts, a node boots): only what lasts is an incident.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from dra import semver
from dra.kube import event_reasons
from dra.kube.watched import PluginPod, WatchedClaim, WatchedNode, WatchedSlice
from dra.names import DRIVER_NAME

Reason = Literal["SlicesMissing", "SlicesStale", "ClaimOnDeadNode"]
SLICES_MISSING: Final = "SlicesMissing"
SLICES_STALE: Final = "SlicesStale"
CLAIM_ON_DEAD_NODE: Final = "ClaimOnDeadNode"
REASONS: Final[tuple[Reason, ...]] = (SLICES_MISSING, SLICES_STALE, CLAIM_ON_DEAD_NODE)
ENDED: Final[Mapping[Reason, event_reasons.Reason]] = {
    SLICES_MISSING: "SlicesMissingEnded",
    SLICES_STALE: "SlicesStaleEnded",
    CLAIM_ON_DEAD_NODE: "ClaimOnDeadNodeEnded",
}
"""What is said when it is over."""
GRACE_SECONDS: Final = 60.0
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
COMPONENT: Final = "node-plugin"

_STRUCTURED_SINCE: Final = (1, 31)
_CONSUMERS_SHOWN: Final = 3


class Subject(msgspec.Struct, frozen=True, order=True):
    """What is wrong with what."""

    reason: Reason
    kind: str
    """`Node` or `ResourceClaim`."""
    namespace: str
    name: str
    uid: str


Found = Mapping[Subject, str]
"""Each with a sentence."""


class Told(msgspec.Struct, frozen=True):
    begun: tuple[tuple[Subject, str], ...] = ()
    ended: tuple[Subject, ...] = ()


class Incidents:
    """Remembers since when something is wrong, and what was told of it already."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._since: dict[Subject, float] = {}
        self._open: set[Subject] = set()

    def see(self, now: float, found: Found) -> Told:
        """Take in what is wrong at this moment (in seconds of a clock that never goes back)."""
        ended = tuple(sorted(self._open - found.keys()))
        self._open &= found.keys()
        self._since = {subject: self._since.get(subject, now) for subject in found}
        begun = sorted(
            subject for subject, since in self._since.items() if subject not in self._open and now - since >= self._grace_seconds
        )
        self._open.update(begun)
        return Told(tuple((subject, found[subject]) for subject in begun), ended)

    def due(self) -> float:
        """When the next of what is wrong becomes an incident, if it lasts."""
        return min((since + self._grace_seconds for subject, since in self._since.items() if subject not in self._open), default=math.inf)

    def counts(self) -> dict[str, int]:
        """Incidents by reason, those without any included."""
        return {reason: sum(subject.reason == reason for subject in self._open) for reason in REASONS}


def look(
    plugins: Iterable[PluginPod], nodes: Mapping[str, WatchedNode], slices: Iterable[WatchedSlice], claims: Iterable[WatchedClaim]
) -> Found:
    """What is wrong now.

    Args:
        plugins: pods of the driver's namespace.
        nodes: by name.
        slices: of this driver.
        claims: of all drivers.
    """
    expected = {
        pod.spec.node_name
        for pod in plugins
        if (pod.metadata.labels or {}).get(COMPONENT_LABEL) == COMPONENT
        and pod.spec.node_name
        and pod.status.phase not in ("Succeeded", "Failed")
        and pod.metadata.deletion_timestamp is None
    }
    by_node: dict[str, list[WatchedSlice]] = {}
    for each in slices:
        by_node.setdefault(each.spec.node_name, []).append(each)
    found: dict[Subject, str] = {}
    for name in expected | by_node.keys():
        node = nodes.get(name)
        # Of a node that is down or gone everybody knows; the kubelet's absence explains the rest.
        if node is not None and node.is_ready and (semver.release(node.status.node_info.kubelet_version) or (9, 0)) >= _STRUCTURED_SINCE:
            found.update(_of_node(node, by_node.get(name, []), is_expected=name in expected, others=bool(expected)))
    for claim in claims:
        found.update(_of_claim(claim, nodes))
    return found


def _of_node(node: WatchedNode, slices: list[WatchedSlice], *, is_expected: bool, others: bool) -> Iterator[tuple[Subject, str]]:
    name = node.metadata.name
    why = None
    reason: Reason = SLICES_STALE
    if not slices:
        reason, why = SLICES_MISSING, "the plugin is meant to run here and has published nothing: none of its GPUs can be allocated"
    elif not is_expected:
        # Without a single pod of the plugin it is installed in a way that is not known here.
        why = "nobody serves the GPUs that are published: no plugin runs here, pods with claims on them will not start" if others else None
    else:
        newest = max(each.spec.pool.generation for each in slices)
        there = [each for each in slices if each.spec.pool.generation == newest]
        wanted = there[0].spec.pool.resource_slice_count
        owners = {owner.uid for each in there for owner in each.metadata.owner_references or () if owner.kind == "Node"}
        if len(there) != wanted:
            why = f"of the pool's {wanted} slices of generation {newest} there are {len(there)}: it is incomplete, and not allocated from"
        elif owners - {node.metadata.uid}:
            why = "what is published belongs to a Node of this name that was deleted, and will be deleted too"
    if why is not None:
        yield Subject(reason, "Node", "", name, node.metadata.uid), f"node {name}: {why}"


def _of_claim(claim: WatchedClaim, nodes: Mapping[str, WatchedNode]) -> Iterator[tuple[Subject, str]]:
    status = claim.status
    if status is None or status.allocation is None or not status.reserved_for:
        return
    for pool in sorted({result.pool for result in status.allocation.devices.results or () if result.driver == DRIVER_NAME}):
        node = nodes.get(pool)
        if node is not None and node.is_ready:
            continue
        state = "does not exist any more" if node is None else "is not ready"
        shown = ", ".join(f"{each.resource}/{each.name}" for each in status.reserved_for[:_CONSUMERS_SHOWN])
        more = "" if len(status.reserved_for) <= _CONSUMERS_SHOWN else " and others"
        yield (
            Subject(CLAIM_ON_DEAD_NODE, "ResourceClaim", claim.metadata.namespace, claim.metadata.name, claim.metadata.uid),
            f"its GPUs are on node {pool}, which {state}; it is reserved for {shown}{more}, and free when those are deleted",
        )
        return
