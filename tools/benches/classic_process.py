"""The embedded control plane of a classic release as a process, with many nodes and GPUs that exist only in the API.

Prints a line of JSON with the kubeconfig when it runs; then answers lines on its standard input:
`fill` gives every GPU to a claim; `pods N` makes N pods with one GPU each, and answers with seconds when all have a node.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import trio

from dra import election
from dra.classic import handle
from dra.classic.handle import Handle, Part
from dra.classic.names import CLASSIC_DRIVER_NAME, FINALIZER, GROUP_VERSION, HEARTBEAT_LABEL, heartbeat_name
from tools.benches.server import ROOT
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kinds import CLAIM, POD, Json

NAMESPACE = "intel-gpu-resource-driver"
LASTING_SECONDS = 86_400
"""Of the plugins' Leases: nobody renews them here."""


def gpu(number: int) -> Json:
    uid = f"0000:{number:02x}:00.0-0x56c0"
    fields = {"memory": 16384, "millicores": 1000, "model": "0x56c0", "type": "gpu", "parentuid": "", "maxvfs": 31, "vfindex": 0}
    return {"uid": uid, **fields, "ecc": False, "quotas": "prelim", "name": "Flex 170"}


class Server:
    def __init__(self, root: str, nodes: int, gpus: int) -> None:
        self._cluster = ClassicCluster(root, kubernetes="1.28", with_kubelet=False)
        self._gpus = [gpu(number) for number in range(1, gpus + 1)]
        for path in sorted((ROOT / "manifests" / "crds").glob("gpu*.yaml")):
            self._cluster.apply_file(str(path))
        self._cluster.create_resource_class("intel-gpu", CLASSIC_DRIVER_NAME)
        lease = self._cluster.registry.kind("coordination.k8s.io/v1", "Lease")
        self._cluster.create(lease, {"metadata": {"name": "gpu-controller"}}, NAMESPACE)
        self._nodes = self._cluster.create_nodes(nodes)
        for node in self._nodes:
            self._state(node)
        self._pods = 0

    def _state(self, node: str) -> None:
        registry = self._cluster.registry
        state: Json = {"metadata": {"name": node}, "status": "Ready"}
        state["spec"] = {"allocatableDevices": {each["uid"]: each for each in self._gpus}}
        self._cluster.create(registry.kind(GROUP_VERSION, "GpuAllocationState"), state, NAMESPACE)
        spec = {"holderIdentity": node, "leaseDurationSeconds": LASTING_SECONDS, "renewTime": election.timestamp(time.time())}
        lease = {"metadata": {"name": heartbeat_name(node), "labels": {HEARTBEAT_LABEL: "true"}}, "spec": spec}
        self._cluster.create(registry.kind("coordination.k8s.io/v1", "Lease"), lease, NAMESPACE)

    def fill(self) -> int:
        """Every GPU belongs to a claim of its own, as this driver writes it; into the store at once, for none of it is measured."""
        pattern = self._cluster.create_resource_claim("pattern", "intel-gpu")
        self._cluster.registry.delete(CLAIM, "pattern", "default")
        count = 0
        for node in self._nodes:
            for each in self._gpus:
                part = Part(uid=each["uid"], memory=each["memory"], millicores=each["millicores"])
                text = handle.render(Handle(version=handle.VERSION, node=node, parts=(part,)))
                where = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
                allocation = {
                    "resourceHandles": [{"driverName": CLASSIC_DRIVER_NAME, "data": text}],
                    "availableOnNodes": {"nodeSelectorTerms": [where]},
                }
                metadata = {**pattern["metadata"], "name": f"full-{count}", "uid": f"full-{count}", "finalizers": [FINALIZER]}
                consumer = {"resource": "pods", "name": f"full-{count}", "uid": f"pod-{count}"}
                status = {"driverName": CLASSIC_DRIVER_NAME, "allocation": allocation, "reservedFor": [consumer]}
                self._cluster.store.put(CLAIM, {**pattern, "metadata": metadata, "status": status})
                count += 1
        return count

    async def pods(self, count: int) -> float:
        first, self._pods = self._pods, self._pods + count
        names = [f"p{number}" for number in range(first, first + count)]
        for name in names:
            self._cluster.create_resource_claim(name, "intel-gpu")
        began = time.perf_counter()
        for name in names:
            self._cluster.create_pod(name, claims={"gpu": name})
        waiting = set(names)

        def bound() -> bool:
            waiting.difference_update([name for name in waiting if self._node_of(name)])
            return not waiting

        await self._cluster.store.until(bound, POD)
        return time.perf_counter() - began

    def _node_of(self, name: str) -> str:
        pod: Any = self._cluster.store.get(POD, "default", name)
        return str(pod["spec"].get("nodeName") or "")

    async def run(self) -> None:
        async with self._cluster.running():
            print(json.dumps({"kubeconfig": self._cluster.kubeconfig_path}), flush=True)
            lines = trio.wrap_file(sys.stdin)
            while line := (await lines.readline()).split():
                answer = self.fill() if line[0] == "fill" else await self.pods(int(line[1]))
                print(json.dumps(answer), flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gb-", dir="/tmp") as root:
        trio.run(Server(root, int(sys.argv[1]), int(sys.argv[2])).run)


if __name__ == "__main__":
    main()
