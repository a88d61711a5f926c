"""A classic cluster of a test's own making: the fake API server with the objects that users, nodes, the scheduler and kubelets write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from dra import election
from dra.classic import handle
from dra.classic.handle import Handle
from dra.classic.inventory import READY
from dra.classic.names import CLASSIC_DRIVER_NAME, GROUP_VERSION, HEARTBEAT_LABEL, heartbeat_name
from dra.classic.placement import Policy
from nursery_apps.controller.classic import ClassicAllocation
from nursery_apps.controller.leadership import Fence
from nursery_apps.latest import Latest
from nursery_apps.seams import ServedApi, Unavailable
from tests.fakes import kube_api
from tests.fakes.kube_api import FakeKubeApi, Json

NAMESPACE = "intel-gpu-resource-driver"
CLASSIC = ("podschedulingcontexts", "resourceclaims", "resourceclaimtemplates", "resourceclasses")
FLEX = "0x56c0"


def gpu(number: int, *, model: str = FLEX, memory: int = 16384, maxvfs: int = 31, **more: Any) -> Json:
    uid = f"0000:{number:02x}:00.0-{model}"
    return {
        "uid": uid,
        "memory": memory,
        "millicores": 1000,
        "model": model,
        "type": "gpu",
        "parentuid": "",
        "maxvfs": maxvfs,
        "vfindex": 0,
        "ecc": False,
        "quotas": "prelim",
        "name": "Flex 170",
        **more,
    }


def vf(number: int, index: int, **more: Any) -> Json:
    parent = gpu(number)["uid"]
    made = gpu(number, memory=2000, maxvfs=0) | {"type": "vf", "parentuid": parent, "vfindex": index, "millicores": 125}
    return made | {"uid": f"0000:{number:02x}:00.{index + 1}-{FLEX}"} | more


class ClassicCluster:
    def __init__(self, *, server_version: str = "v1.28.15") -> None:
        self.api = FakeKubeApi()
        self.api.offer = ServedApi(server_version, (("v1alpha2", CLASSIC),))
        self.wall = 1_800_000_000.0
        self.events: list[tuple[str, str, str, str]] = []
        """(kind, name, reason, sentence)"""
        self.allocated = 0
        self.beating: set[str] = set()
        """Nodes whose plugins renew their Leases."""
        self.policy = Latest(Policy())
        for name, spec in (("intel-gpu", {}), ("intel-gpu-shared", {"shared": True}), ("intel-gpu-monitor", {"monitor": True})):
            self.resource_class(name, **spec)

    # --- what others write

    def resource_class(self, name: str, *, driver: str = CLASSIC_DRIVER_NAME, **spec: Any) -> None:
        self.api.put("gpuclassparameters", {"metadata": {"name": f"{name}-params"}, "spec": spec})
        ref = {"apiGroup": GROUP_VERSION, "kind": "GpuClassParameters", "name": f"{name}-params"}
        self.api.put("resourceclasses", {"metadata": {"name": name}, "driverName": driver, "parametersRef": ref})

    def node(self, name: str, devices: Iterable[Json] = (), *, status: str = READY, **spec: Any) -> None:
        body = {"metadata": {"name": name}, "spec": {"allocatableDevices": {one["uid"]: one for one in devices}, **spec}, "status": status}
        self.api.put("gpuallocationstates", body, namespace=NAMESPACE)
        self.beating.add(name)
        self.heartbeat(name)

    def heartbeat(self, node: str) -> None:
        self.wall += 1
        spec = {"holderIdentity": node, "leaseDurationSeconds": 50, "renewTime": _rfc3339(self.wall)}
        metadata = {"name": heartbeat_name(node), "labels": {HEARTBEAT_LABEL: "true"}}
        self.api.put("leases", {"metadata": metadata, "spec": spec}, namespace=NAMESPACE)

    def claim(self, name: str, *, of_class: str = "intel-gpu", mode: str = "WaitForFirstConsumer", owner: str = "", **spec: Any) -> Json:
        """A claim with parameters of its own, if any are given."""
        ref = {}
        if spec:
            self.api.put("gpuclaimparameters", {"metadata": {"name": f"{name}-params"}, "spec": spec}, namespace="default")
            ref = {"parametersRef": {"apiGroup": GROUP_VERSION, "kind": "GpuClaimParameters", "name": f"{name}-params"}}
        owners = {"ownerReferences": [{"kind": "Pod", "uid": owner, "controller": True}]} if owner else {}
        body = {"metadata": {"name": name, **owners}, "spec": {"resourceClassName": of_class, "allocationMode": mode, **ref}, "status": {}}
        return self.api.put("resourceclaims", body, namespace="default")

    def pod(self, name: str, claims: Mapping[str, str] | Iterable[str], *, nodes: Iterable[str] = (), selected: str = "") -> None:
        """A pod with claims (what it calls them -> their names), and what the scheduler asks for it."""
        named = dict(claims) if isinstance(claims, Mapping) else {claim: claim for claim in claims}
        uses = [{"name": inside, "source": {"resourceClaimName": claim}} for inside, claim in named.items()]
        self.api.put("pods", {"metadata": {"name": name, "uid": f"pod-{name}"}, "spec": {"resourceClaims": uses}}, namespace="default")
        self.schedule(name, nodes=nodes, selected=selected)

    def schedule(self, pod: str, *, nodes: Iterable[str] = (), selected: str = "") -> None:
        spec = {"potentialNodes": list(nodes), **({"selectedNode": selected} if selected else {})}
        owners = [{"kind": "Pod", "name": pod, "uid": f"pod-{pod}", "controller": True}]
        before = self.api.objects.get(("podschedulingcontexts", "default", pod), {})
        metadata = {"name": pod, "ownerReferences": owners}
        self.api.put("podschedulingcontexts", {"metadata": metadata, "spec": spec, "status": before.get("status", {})}, namespace="default")

    def change(self, plural: str, name: str, body: Json) -> None:
        """Merge top-level fields into an object in the namespace `default`."""
        self.api.put(plural, {**self.api.objects[plural, "default", name], **body}, namespace="default")

    def unreserve(self, name: str, *, deallocate: bool = True) -> None:
        """The pods of a claim are gone, and whoever keeps track of that asks for its end."""
        status = {**self.the_claim(name)["status"], "reservedFor": None}
        self.change("resourceclaims", name, {"status": {**status, **({"deallocationRequested": True} if deallocate else {})}})

    def delete_claim(self, name: str) -> None:
        claim = self.the_claim(name)
        if claim["metadata"].get("finalizers"):
            self.change("resourceclaims", name, {"metadata": {**claim["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
        else:
            self.api.remove("resourceclaims", name, namespace="default")

    def lose_an_answer(self, plural: str, *, stored: bool) -> None:
        """The next write to an object of the kind is stored or not, and nobody hears of it."""

        def lose(to: str, body: Json) -> None:
            if to != plural:
                return
            self.api.on_store = lambda _plural, _body: None
            if stored:
                self.api.put(plural, {**body, "metadata": dict(body["metadata"])}, namespace=body["metadata"]["namespace"])
            raise Unavailable(0, "Lost", "no answer")

        self.api.on_store = lose

    # --- what came of it

    def the_claim(self, name: str) -> Json:
        return self.api.objects["resourceclaims", "default", name]

    def handle(self, name: str) -> Handle | None:
        allocation = (self.the_claim(name).get("status") or {}).get("allocation")
        return handle.parse(allocation["resourceHandles"][0]["data"]) if allocation else None

    def devices(self, name: str) -> list[str]:
        """PCI addresses, with the numbers of VFs: `04:00.0`, `04:00.0#2`."""
        found = self.handle(name)
        said = []
        for part in found.parts if found is not None else ():
            address = part.uid[5:12]
            said += [f"{address}#{number}" for number in part.vfs] if part.vfs else [address]
        return said

    def unsuitable(self, pod: str) -> dict[str, list[str]] | None:
        status = self.api.objects["podschedulingcontexts", "default", pod].get("status") or {}
        entries = status.get("resourceClaims")
        return {entry["name"]: entry["unsuitableNodes"] for entry in entries} if entries is not None else None

    # --- the allocation under test

    @asynccontextmanager
    async def allocating(self, fence: Fence | None = None) -> AsyncIterator[ClassicAllocation]:
        """While inside, a controller leads."""
        if fence is None:
            fence = Fence()
            fence.until = float("inf")
        work = ClassicAllocation(
            self.api,
            fence,
            namespace=NAMESPACE,
            policy=self.policy,
            workers=4,
            clock=lambda: self.wall,
            random=lambda: 0.5,
            announce=lambda about, _weight, reason, sentence: self.events.append((about.kind, about.name, reason, sentence)),
            on_allocated=self._count,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.run)
            nursery.start_soon(self._beat)
            yield work
            nursery.cancel_scope.cancel()

    def _count(self, _node: str, claims: int) -> None:
        self.allocated += claims

    async def _beat(self) -> None:
        """Plugins live, unless a test stops their hearts by removing their names."""
        while True:
            await trio.sleep(15)
            for node in self.beating:
                self.heartbeat(node)


async def until(true: Callable[[], bool]) -> None:
    """Within two minutes of virtual time: what a controller is told it acts upon at once, and what failed it tries again sooner."""
    await kube_api.until(true, seconds=120)


def _rfc3339(at: float) -> str:
    return election.timestamp(at)
