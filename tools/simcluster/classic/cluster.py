"""SimCluster of a release with classic DRA, with the words of its API.

async with ClassicCluster(str(tmp_path), kubernetes="1.28", with_kubelet=False).running() as cluster:
    cluster.create_nodes(1000)
    cluster.create_resource_class("intel-gpu", "gpu.resource.intel.com")
    cluster.create_resource_claim("gpu", "intel-gpu")
    cluster.create_pod("p", claims={"gpu": "gpu"})
    await cluster.wait_bound("p")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.simcluster.classic.rules import DELAYED
from tools.simcluster.cluster import DEADLINE_SECONDS, SimCluster
from tools.simcluster.kinds import CLAIM, NODE, POD, RESOURCE_CLASS, SCHEDULING, TEMPLATE, Json


class ClassicCluster(SimCluster):
    """`kubernetes` must be 1.28 to 1.30; everything else as with SimCluster."""

    def __init__(self, root: str, *, kubernetes: str = "1.28", **more: Any) -> None:
        """
        Raises:
            ValueError: no such release, or one without classic DRA.
        """
        super().__init__(root, kubernetes=kubernetes, **more)
        if not self.release.is_classic:
            raise ValueError(f"Kubernetes {kubernetes} has no classic DRA here")

    # --- writing -----------------------------------------------------------------------------------------------------------------

    def create_nodes(self, count: int, *, prefix: str = "node", labels: Mapping[str, str] | None = None) -> list[str]:
        """Nodes without a kubelet, `node-0000` and so on: something to allocate for, nothing to run on."""
        names = [f"{prefix}-{number:04}" for number in range(count)]
        for name in names:
            said = {"kubernetes.io/hostname": name, **(labels or {})}
            status = {"nodeInfo": {"kubeletVersion": self.release.git_version}}
            self.create(NODE, {"metadata": {"name": name, "labels": said}, "spec": {}, "status": status})
        return names

    def create_resource_class(
        self, name: str, driver: str, *, parameters: Mapping[str, str] | None = None, suitable_nodes: Json | None = None
    ) -> Json:
        """
        Args:
            parameters: its parametersRef: apiGroup, kind, name.
            suitable_nodes: a NodeSelector.
        """
        body: Json = {"metadata": {"name": name}, "driverName": driver}
        if parameters is not None:
            body["parametersRef"] = dict(parameters)
        if suitable_nodes is not None:
            body["suitableNodes"] = suitable_nodes
        return self.create(RESOURCE_CLASS, body)

    def create_resource_claim(
        self,
        name: str,
        resource_class: str,
        *,
        parameters: Mapping[str, str] | None = None,
        mode: str = DELAYED,
        namespace: str = "default",
        template: bool = False,
    ) -> Json:
        """A claim, or a template of such claims.

        Args:
            parameters: its parametersRef: apiGroup, kind, name.
            mode: `WaitForFirstConsumer` or `Immediate`.
        """
        spec: Json = {"resourceClassName": resource_class, "allocationMode": mode}
        if parameters is not None:
            spec["parametersRef"] = dict(parameters)
        if template:
            return self.create(TEMPLATE, {"metadata": {"name": name}, "spec": {"spec": spec}}, namespace)
        return self.create(CLAIM, {"metadata": {"name": name}, "spec": spec}, namespace)

    # --- reading and waiting -----------------------------------------------------------------------------------------------------

    def scheduling(self, pod: str, *, namespace: str = "default") -> Json | None:
        """The pod's PodSchedulingContext."""
        return self.store.get(SCHEDULING, namespace, pod)

    async def wait_bound(self, name: str, *, namespace: str = "default", deadline: float = DEADLINE_SECONDS) -> str:
        """The node the pod is put on.

        Raises:
            AssertionError: with the pod's events.
        """

        def bound() -> str:
            found = self.store.get(POD, namespace, name)
            return (found["spec"].get("nodeName") or "") if found is not None else ""

        try:
            await self.wait(POD, lambda _pods: bound(), f"pod {name} bound", deadline=deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {self.events(name)}") from None
        return bound()
