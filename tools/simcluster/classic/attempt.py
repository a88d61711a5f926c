"""One attempt of the scheduler at one pod, up to the node: which claims it has, which nodes they allow."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tools.simcluster import node_selector, pod_claims, refusals
from tools.simcluster.classic.claims import can_be_reserved, is_reserved
from tools.simcluster.classic.nodes import Nodes
from tools.simcluster.classic.rules import IMMEDIATE
from tools.simcluster.kinds import CLAIM, RESOURCE_CLASS, SCHEDULING, Json
from tools.simcluster.store import Store


class Unschedulable(Exception):
    """Why the pod gets no node now."""

    def __init__(self, why: str, *, is_pending: bool = False) -> None:
        super().__init__(why)
        self.is_pending = is_pending
        """It waits for a driver: from 1.29 on it is not made to back off for that."""


class Gated(Unschedulable):
    """Its claims are not there yet: it does not even come into the queue."""


class PodClaim(msgspec.Struct):
    entry: str
    """Its name in the pod."""
    claim: Json

    @property
    def is_pending(self) -> bool:
        return not (self.claim.get("status") or {}).get("allocation")

    @property
    def selector(self) -> Json | None:
        found: Json | None = self.claim["status"]["allocation"].get("availableOnNodes")
        return found


def claims_of(store: Store, pod: Json) -> list[PodClaim]:
    """PreEnqueue and PreFilter: the claims, all of them in a state from which the pod can go on.

    Raises:
        Unschedulable
    """
    found = []
    for entry, name in pod_claims.claim_names(pod):
        if not name:
            raise Gated("waiting for dynamic resource claim to be created")
        claim = store.get(CLAIM, pod["metadata"]["namespace"], name)
        if claim is None:
            raise Gated(f'resourceclaim.resource.k8s.io "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            raise Gated(f'resourceclaim "{name}" is being deleted')
        status = claim.get("status") or {}
        if status.get("deallocationRequested"):
            raise Unschedulable("resourceclaim must be reallocated")
        if status.get("allocation"):
            if not can_be_reserved(claim) and not is_reserved(claim, pod):
                raise Unschedulable("resourceclaim in use")
        elif claim["spec"]["allocationMode"] == IMMEDIATE:
            raise Unschedulable("unallocated immediate resourceclaim")
        found.append(PodClaim(entry, claim))
    return found


def scheduling_of(store: Store, pod: Json) -> Json | None:
    """The pod's PodSchedulingContext.

    Raises:
        Refused: there is one of another pod of that name.
    """
    metadata = pod["metadata"]
    found = store.get(SCHEDULING, metadata["namespace"], metadata["name"])
    if found is None:
        return None
    if metadata["uid"] not in {owner["uid"] for owner in found["metadata"].get("ownerReferences") or () if owner.get("controller")}:
        raise refusals.conflict(SCHEDULING, metadata["name"], f"it is not owned by the Pod with UID {metadata['uid']}")
    return found


def statuses(scheduling: Json | None) -> dict[str, list[str]]:
    """What the drivers have said: entry -> unsuitable nodes."""
    said = ((scheduling or {}).get("status") or {}).get("resourceClaims") or ()
    return {entry["name"]: entry.get("unsuitableNodes") or [] for entry in said}


class Filtered(msgspec.Struct):
    feasible: list[str]
    """As many as are enough."""
    reasons: dict[str, int]
    """Why others are not -> how many."""


def filtered(store: Store, nodes: Nodes, pod: Json, claims: list[PodClaim], scheduling: Json | None) -> Filtered:
    """Filter, node by node, of all nodes or of those that allocated claims name.

    Raises:
        Unschedulable: the class of a pending claim is not there.
    """
    tests: list[tuple[str, Callable[[str], bool]]] = []
    among: list[str] | None = None
    said = statuses(scheduling)
    for each in claims:
        if each.is_pending:
            tests += _pending_tests(store, nodes, each, said.get(each.entry, []))
        elif (selector := each.selector) is not None:
            tests.append(("resourceclaim not available on the node", _admitted_by(selector, nodes)))
            if (named := node_selector.names(selector)) is not None:
                among = named if among is None else [name for name in among if name in named]
    found = Filtered([], {})
    enough = nodes.enough()
    for name in nodes.open_to(pod, among=among):
        failed = next((why for why, test in tests if not test(name)), None)
        if failed is None:
            found.feasible.append(name)
            if len(found.feasible) >= enough:
                break
        else:
            found.reasons[failed] = found.reasons.get(failed, 0) + 1
    if among is not None and not found.feasible:
        left = len(nodes) - sum(found.reasons.values())
        why = "resourceclaim not available on the node"
        found.reasons[why] = found.reasons.get(why, 0) + left
    return found


def _pending_tests(store: Store, nodes: Nodes, each: PodClaim, unsuitable: list[str]) -> list[tuple[str, Callable[[str], bool]]]:
    class_name = each.claim["spec"]["resourceClassName"]
    found = store.get(RESOURCE_CLASS, "", class_name)
    if found is None:
        raise Unschedulable(f"resource class {class_name} does not exist")
    tests: list[tuple[str, Callable[[str], bool]]] = []
    if suitable := found.get("suitableNodes"):
        tests.append(("excluded by resource class node filter", _admitted_by(suitable, nodes)))
    if unsuitable:
        excluded = frozenset(unsuitable)
        tests.append(("resourceclaim cannot be allocated for the node (unsuitable)", lambda name: name not in excluded))
    return tests


def _admitted_by(selector: Json, nodes: Nodes) -> Callable[[str], bool]:
    return lambda name: node_selector.matches(selector, nodes[name])


def blocking(nodes: Nodes, pod: Json, claims: list[PodClaim]) -> list[PodClaim]:
    """Allocated claims that keep the pod from some node, and could be allocated anew for another."""
    found = []
    for each in claims:
        if each.is_pending or (selector := each.selector) is None or each.claim["spec"]["allocationMode"] == IMMEDIATE:
            continue
        if any(not node_selector.matches(selector, nodes[name]) for name in nodes.open_to(pod)):
            found.append(each)
    return found
