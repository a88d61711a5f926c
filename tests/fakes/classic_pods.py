"""Pods of a classic cluster as the scheduler, the garbage collector and the claim controller of Kubernetes 1.28 to 1.30 treat them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dra import layouts, vf_profiles
from dra.classic import handle, placement, stock, vf_planning
from dra.classic.handle import Handle, profiles_of
from dra.classic.inventory import DeviceType, GpuAllocationState
from dra.classic.parameters import ClaimParameters, ClassParameters, Demand
from dra.classic.placement import Policy, Unfit
from tests.fakes.classic_cluster import ClassicCluster

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpu": ("intel-gpu", {}),
    "large": ("intel-gpu", {"memory": 8000}),
    "pair": ("intel-gpu", {"count": 2}),
    "share": ("intel-gpu-shared", {"memory": 3000, "millicores": 400}),
    "slice": ("intel-gpu-shared", {"millicores": 100}),
    "vf": ("intel-gpu", {"type": "vf", "memory": 1500}),
    "vfs": ("intel-gpu", {"type": "vf", "memory": 3000, "count": 2}),
    "any-vf": ("intel-gpu", {"type": "vf"}),
    "any": ("intel-gpu", {"type": "any", "count": 2}),
    "monitor": ("intel-gpu-monitor", {}),
}
"""What claims ask for: class and parameters."""


class ClassicPods:
    def __init__(self, cluster: ClassicCluster, nodes: Collection[str]) -> None:
        self.cluster = cluster
        self.nodes = sorted(nodes)
        self.pods: dict[str, list[str]] = {}
        """Their claims."""
        self.bound: dict[str, str] = {}
        """To which node."""
        self.loose: set[str] = set()
        """Immediate claims, which no pod uses."""
        self.of_kind: dict[str, str] = {}
        self.made = 0

    # --- what users do

    def pod(self, wanted: Sequence[str]) -> None:
        self.made += 1
        pod = f"p{self.made}"
        self.pods[pod] = [self._claim(f"{pod}-{number}", kind) for number, kind in enumerate(wanted)]
        self.cluster.pod(pod, self.pods[pod])

    def immediate(self, kind: str) -> None:
        self.made += 1
        self.loose.add(self._claim(f"i{self.made}", kind, mode="Immediate"))

    def _claim(self, name: str, kind: str, **more: Any) -> str:
        of_class, spec = KINDS[kind]
        self.of_kind[name] = kind
        self.cluster.claim(name, of_class=of_class, **more, **spec)
        return name

    def end(self, pod: str) -> None:
        """The pod and its claims go, as garbage collector and claim controller see to it."""
        if ("podschedulingcontexts", "default", pod) in self.cluster.api.objects:
            self.cluster.api.remove("podschedulingcontexts", pod, namespace="default")
        self.cluster.api.remove("pods", pod, namespace="default")
        self.bound.pop(pod, None)
        for claim in self.pods.pop(pod):
            self.drop(claim)

    def drop(self, claim: str) -> None:
        if ("resourceclaims", "default", claim) in self.cluster.api.objects:
            self.cluster.delete_claim(claim)
        if ("resourceclaims", "default", claim) in self.cluster.api.objects:
            status = {**self.cluster.the_claim(claim)["status"], "reservedFor": None}
            self.cluster.change("resourceclaims", claim, {"status": status})

    # --- the scheduler

    def schedule(self) -> None:
        for pod, claims in self.pods.items():
            if pod not in self.bound:
                self._attempt(pod, claims)

    def _attempt(self, pod: str, claims: list[str]) -> None:
        cluster = self.cluster
        statuses = {claim: cluster.the_claim(claim).get("status") or {} for claim in claims}
        allocated = {claim for claim in claims if statuses[claim].get("allocation")}
        homes = {found.node for claim in allocated if (found := cluster.handle(claim)) is not None}
        if len(allocated) == len(claims):
            if all(not status.get("deallocationRequested") for status in statuses.values()):
                [self.bound[pod]] = homes
                cluster.api.remove("podschedulingcontexts", pod, namespace="default")
            return
        said = cluster.unsuitable(pod) or {}
        pending = [claim for claim in claims if claim not in allocated]
        candidates = [node for node in self.nodes if not homes or homes == {node}]
        suitable = [node for node in candidates if not any(node in said.get(claim, ()) for claim in pending)]
        context = cluster.api.objects["podschedulingcontexts", "default", pod]["spec"]
        if not suitable and allocated and all(claim in said for claim in pending):
            # Some of the pod's claims are where the others cannot be: the scheduler asks for the end of one (PostFilter).
            for claim in allocated:
                status = {**statuses[claim], "reservedFor": None, "deallocationRequested": True}
                cluster.change("resourceclaims", claim, {"status": status})
            return
        selected = suitable[self.made % len(suitable)] if suitable and all(claim in said for claim in pending) else ""
        wanted = {"potentialNodes": self.nodes, **({"selectedNode": selected} if selected else {})}
        if wanted != context:
            cluster.schedule(pod, nodes=self.nodes, selected=selected)

    # --- what came of it

    def handles(self) -> dict[str, Handle]:
        """Of all claims that are allocated, by name."""
        found = {}
        for (plural, _, name), body in self.cluster.api.objects.items():
            allocation = (body.get("status") or {}).get("allocation") if plural == "resourceclaims" else None
            if allocation:
                [only] = allocation["resourceHandles"]
                found[name] = handle.parse(only["data"])
        return found

    def room_for(self, claims: Sequence[str], states: Mapping[str, GpuAllocationState]) -> str | None:
        """A node that has room for claims that wait; None if there is none."""
        demands = [_demand(self.of_kind[claim]) for claim in claims]
        held = self.handles()
        for node in self.nodes:
            at = stock.of_node(states[node], [each for each in held.values() if each.node == node])
            if not isinstance(placement.place(at, demands, Policy(), node), Unfit):
                return node
        return None


def check_nothing_is_given_twice(handles: Mapping[str, Handle], states: Mapping[str, GpuAllocationState]) -> None:
    """
    Args:
        states: of nodes on which no claim has anything.
    """
    whole: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    shares: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    vfs: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    cut: dict[tuple[str, str], Any] = {}
    for name, found in handles.items():
        for part in found.parts:
            card = (found.node, part.parent or part.uid)
            if part.vfs or part.parent:
                for number in part.vfs or (part.index,):
                    assert number not in vfs[card], f"VF {number} of {card} belongs to {name} and {vfs[card][number]}"
                    vfs[card][number] = name
                assert cut.setdefault(card, part.layout) == part.layout, f"{card} is cut in two ways"
                assert all(number <= len(profiles_of(part.layout)) for number in part.vfs)
            elif found.shared:
                shares[card].append((part.memory, part.millicores))
            else:
                whole[card].append(name)
    for card, names in whole.items():
        assert len(names) == 1 and card not in shares and card not in vfs, f"{card}: {names}, {shares.get(card)}, {vfs.get(card)}"
    for (node, uid), amounts in shares.items():
        assert (node, uid) not in vfs, f"{uid} of {node} is shared, and cut for {vfs[node, uid]}"
        memory, millicores = (sum(each) for each in zip(*amounts, strict=True))
        assert memory <= states[node].devices[uid].memory and millicores <= 1000, f"{uid} of {node}: {amounts}"
    for (node, uid), layout in cut.items():
        if layout:
            shape = vf_planning.shape_of(states[node].devices[uid])
            named = tuple(profile for name in profiles_of(layout) if (profile := vf_profiles.find(name)) is not None)
            assert layouts.feasible(named, vf_planning._card(shape)) == ()


def _demand(kind: str) -> Demand:
    of_class, spec = KINDS[kind]
    return Demand(
        ClassParameters(shared="shared" in of_class, monitor="monitor" in of_class),
        ClaimParameters(**{**spec, "type": DeviceType(spec.get("type", "gpu"))}),
    )
