"""A classic DRA controller of a few lines, in the same program as the control plane: so many devices a node, one for each claim.

It does what the contract asks: a finalizer before everything else, all claims of a pod together, a status entry for each of them, and
deallocation of what is not used any more. It acts when something was written.
"""

from __future__ import annotations

from typing import Any

from tools.simcluster import pod_claims
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import CLAIM, NODE, POD, RESOURCE_CLASS, SCHEDULING, Json


class TinyController:
    def __init__(self, cluster: SimCluster, driver: str = "gpu.resource.intel.com", *, devices: int = 1, handles: int = 1) -> None:
        """
        Args:
            devices: of each node.
            handles: that each allocation gets.
        """
        self._cluster, self._registry, self._store = cluster, cluster.registry, cluster.store
        self.driver, self.devices, self.handles = driver, devices, handles
        self.finalizer = f"{driver}/deletion-protection"
        self.shareable = False
        self.allocates = True
        """Else it only answers about nodes."""
        self.answers = True
        self.allocations: list[tuple[str, str]] = []
        """(claim, node) as they were made."""

    async def run(self) -> None:
        while True:
            before = self._store.revision
            self.act()
            if self._store.revision == before:
                await self._store.changed()

    def act(self) -> None:
        for claim in list(self._store.each(CLAIM)):
            self._look_at(claim)
        for scheduling in list(self._store.each(SCHEDULING)):
            self._negotiate(scheduling)

    def _is_ours(self, claim: Json) -> bool:
        found = self._store.get(RESOURCE_CLASS, "", claim["spec"]["resourceClassName"])
        return found is not None and found["driverName"] == self.driver

    def _look_at(self, claim: Json) -> None:
        status, metadata = claim.get("status") or {}, claim["metadata"]
        if status.get("reservedFor"):
            return
        if metadata.get("deletionTimestamp") or status.get("deallocationRequested"):
            if self.finalizer in (metadata.get("finalizers") or ()):
                self._registry.amend(CLAIM, claim, lambda body: body.update(status={}), subresource="status")
                self._registry.amend(CLAIM, claim, lambda body: body["metadata"]["finalizers"].remove(self.finalizer))
        elif claim["spec"]["allocationMode"] == "Immediate" and not status.get("allocation") and self.allocates and self._is_ours(claim):
            for node in [node for node in self._nodes() if self._free(node)][:1]:
                self._allocate(claim, node, None)

    def _negotiate(self, scheduling: Json) -> None:
        spec, metadata = scheduling["spec"], scheduling["metadata"]
        pod = self._store.get(POD, metadata["namespace"], metadata["name"])
        if pod is None:
            return
        pending = []
        for entry, name in pod_claims.claim_names(pod):
            claim = self._store.get(CLAIM, metadata["namespace"], name)
            if claim is not None and self._is_ours(claim) and not (claim.get("status") or {}).get("allocation"):
                pending.append((entry, claim))
        if not pending:
            return
        selected = spec.get("selectedNode", "")
        nodes = {*(spec.get("potentialNodes") or ()), *([selected] if selected else [])}
        unsuitable = sorted(node for node in nodes if self._free(node) < len(pending))
        if self.allocates and selected and selected not in unsuitable:
            for _, claim in pending:
                self._allocate(claim, selected, pod)
            return
        if self.answers:
            said = [{"name": entry, "unsuitableNodes": unsuitable} for entry, _ in pending]
            self._registry.amend(SCHEDULING, scheduling, lambda body: body.update(status={"resourceClaims": said}), subresource="status")

    def _nodes(self) -> list[str]:
        return [node["metadata"]["name"] for node in self._store.each(NODE)]

    def _free(self, node: str) -> int:
        return self.devices - sum(_node_of(claim) == node for claim in self._store.each(CLAIM))

    def _allocate(self, claim: Json, node: str, pod: Json | None) -> None:
        if self.finalizer not in (claim["metadata"].get("finalizers") or ()):
            self._registry.amend(CLAIM, claim, self._protect)
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        allocation: dict[str, Any] = {
            "resourceHandles": [{"driverName": self.driver, "data": f"{claim['metadata']['name']} on {node}"}] * self.handles,
            "availableOnNodes": {"nodeSelectorTerms": [{"matchFields": [field]}]},
            "shareable": self.shareable,
        }
        status: Json = {"driverName": self.driver, "allocation": allocation}
        if pod is not None:
            status["reservedFor"] = [{"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}]
        self._registry.amend(CLAIM, claim, lambda body: body.update(status=status), subresource="status")
        self.allocations.append((claim["metadata"]["name"], node))

    def _protect(self, body: Json) -> None:
        body["metadata"]["finalizers"] = [*(body["metadata"].get("finalizers") or ()), self.finalizer]


def _node_of(claim: Json) -> str:
    allocation = (claim.get("status") or {}).get("allocation")
    return str(allocation["availableOnNodes"]["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]) if allocation else ""
