"""Alerts against an API server with the rules of a real one, in each version that knows taint rules and in those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dra.alerts import Alert
from dra.names import Bdf, NodeName
from dra.pool import Effect
from nursery_apps.controller.kinds import STATES as STATES_KIND
from nursery_apps.controller.tainter import Tainter
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.edges.kubeconfig import KubeconfigCredentials
from nursery_apps.node.alert_taints import AlertTaints
from tests.fakes.gpu_states import CARD, UID
from tests.fakes.kube_api import until
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import NODE, SLICE, TAINT_RULE

STATES = Path(__file__).parents[2] / "manifests" / "crds" / "gpuallocationstates.yaml"
NAMESPACE = "default"
WITH_RULES = [("1.37", (), "v1"), ("1.36", ("v1beta2",), "v1beta2"), ("1.35", ("v1alpha3",), "v1alpha3"), ("1.33", (), "v1alpha3")]


def alert(name: str, *, firing: bool = True) -> Alert:
    return Alert(name=name, firing=firing, node="node1", bdf=Bdf("0000:03:00.0"), pci_id="0x56c0")


@asynccontextmanager
async def cluster(tmp_path: Path, release: str, runtime_config: tuple[str, ...] = ()) -> AsyncIterator[tuple[SimCluster, HttpKubeApi]]:
    """With a node and its GPU in a slice."""
    async with SimCluster(str(tmp_path), kubernetes=release, runtime_config=runtime_config, with_kubelet=False).running() as running:
        if running.registry.store.get(NODE, "", "node1") is None:
            running.registry.create(NODE, {"metadata": {"name": "node1"}})
        pool = {"name": "node1", "generation": 1, "resourceSliceCount": 1}
        device = {"name": CARD, "attributes": {"pfPciAddress": {"string": "0000:03:00.0"}}}
        spec = {"driver": "gpu.intel.com", "nodeName": "node1", "pool": pool, "devices": [device]}
        running.registry.create(SLICE, {"metadata": {"name": "s"}, "spec": spec})
        client = HttpKubeApi(KubeconfigCredentials(running.kubeconfig_path), user_agent="test/1", random=lambda: 0.5)
        try:
            yield running, client
        finally:
            await client.aclose()


def replica(client: HttpKubeApi, effect: Effect = Effect.NO_SCHEDULE) -> Tainter:
    return Tainter(client, namespace=NAMESPACE, effect=lambda: effect, random=lambda: 0.5)


@pytest.mark.parametrize(("release", "runtime_config", "version"), WITH_RULES)
async def test_rules_come_change_and_go(tmp_path: Path, release: str, runtime_config: tuple[str, ...], version: str) -> None:
    async with cluster(tmp_path, release, runtime_config) as (running, client):

        def stored() -> dict[str, Any]:
            [rule] = running.store.each(TAINT_RULE)
            return rule

        first, second = replica(client), replica(client, Effect.NO_EXECUTE)
        assert await first.apply([alert("GpuHot")]) == []
        assert stored()["spec"]["deviceSelector"] == {"driver": "gpu.intel.com", "pool": "node1", "device": CARD}
        await second.apply([alert("GpuNeedsReset")])
        assert stored()["spec"]["taint"]["effect"] == "NoExecute"
        assert stored()["metadata"]["annotations"] == {"gpu.intel.com/alert-reasons": '["GpuHot","GpuNeedsReset"]'}
        await second.apply([alert("GpuHot", firing=False)])
        assert len(list(running.store.each(TAINT_RULE))) == 1
        await first.apply([alert("GpuNeedsReset", firing=False)])
        assert list(running.store.each(TAINT_RULE)) == []


@pytest.mark.parametrize("release", ["1.32", "1.34", "1.36"])
async def test_without_rules_the_nodes_plugin_hears_of_it(tmp_path: Path, release: str, nursery: Any) -> None:
    async with cluster(tmp_path, release) as (running, client):
        running.apply_file(str(STATES))
        plugin = AlertTaints(client, NodeName("node1"), namespace=NAMESPACE, random=lambda: 0.5)
        nursery.start_soon(plugin.run)
        await replica(client).apply([alert("GpuHot"), alert("GpuNeedsReset")])
        await until(lambda: plugin.tainted.value == {CARD}, seconds=5)
        state = await client.get(STATES_KIND, "node1", namespace=NAMESPACE)
        assert state["spec"]["taintedDevices"] == {UID: {"reasons": {"GpuHot": True, "GpuNeedsReset": True}}}
        assert state["metadata"]["ownerReferences"][0]["kind"] == "Node"
        await replica(client).apply([alert("GpuHot", firing=False)])
        await replica(client).apply([alert("GpuNeedsReset", firing=False)])
        await until(lambda: not plugin.tainted.value, seconds=5)
        nursery.cancel_scope.cancel()
