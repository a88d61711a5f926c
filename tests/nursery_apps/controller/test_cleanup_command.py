"""The command against an API server in memory, where time is free: the patience with plugins, and what cannot be done."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from dra.settings import NodePluginConfiguration, decode_node
from nursery_apps.controller.cleanup_command import Cleanup
from nursery_apps.edges import yaml_text
from nursery_apps.seams import Conflict, Forbidden, ServedApi, Unavailable
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster, gpu
from tests.fakes.kube_api import FakeKubeApi, until

TEXT = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"


def decode(text: str) -> NodePluginConfiguration:
    return decode_node(yaml_text.load(text.encode(), "settings"), "settings")


class Run:
    """One run of the command, and what it said."""

    def __init__(self, api: FakeKubeApi, *, timeout: float = 300, settings: bool = True) -> None:
        self.api, self.said, self.clean = api, list[str](), None
        if settings:
            api.put("configmaps", {"metadata": {"name": "settings"}, "data": {"settings.yaml": TEXT}}, namespace=NAMESPACE)
        self._command = Cleanup(
            api,
            namespace=NAMESPACE,
            config_map="settings",
            timeout_seconds=timeout,
            decode=decode,
            say=self.said.append,
            random=lambda: 0.5,
        )

    clean: bool | None

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    @property
    def left(self) -> str:
        return self.text.partition("left behind:")[2]

    async def __call__(self) -> None:
        self.clean = await self._command.run()


def sliced(api: FakeKubeApi, node: str, *, devices: int = 0, ready: bool | None = True) -> None:
    """A node with a slice; `ready` says how its plugin is, None that there is no such Node."""
    body: dict[str, Any] = {"driver": "gpu.intel.com", "nodeName": node, "pool": {"name": node}, "devices": [{"name": "x"}] * devices}
    api.put("resourceslices", {"metadata": {"name": f"s-{node}"}, "spec": body})
    if ready is not None:
        api.put("nodes", {"metadata": {"name": node}})
        plugin(api, node, ready=ready)


def plugin(api: FakeKubeApi, node: str, *, ready: bool, component: str = "node-plugin") -> None:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    metadata = {"name": f"{component}-{node}", "labels": {"app.kubernetes.io/component": component}}
    api.put("pods", {"metadata": metadata, "spec": {"nodeName": node}, "status": status}, namespace=NAMESPACE)


async def test_it_says_how_far_each_node_is_and_ends_when_the_last_is_clean(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    sliced(api, "n1", devices=2)
    run = Run(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until(lambda: "2 devices are still offered" in run.text)
        assert "decommission: true" in api.objects["configmaps", NAMESPACE, "settings"]["data"]["settings.yaml"]
        sliced(api, "n1")
        await until(lambda: "n1: draining" in run.text)
        results = [{"driver": "gpu.intel.com", "pool": "n1", "device": "x", "request": "r"}]
        status = {"allocation": {"devices": {"results": results}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}
        api.put("resourceclaims", {"metadata": {"name": "c"}, "spec": {}, "status": status}, namespace="default")
        await until(lambda: "n1: held by claim default/c (reserved for p)" in run.text)
        api.remove("resourceclaims", "c", namespace="default")
        api.remove("resourceslices", "s-n1")
    assert run.clean is True and "clean: nothing" in run.text


async def test_slices_that_a_kubelet_wiped_and_that_come_back_are_waited_for(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    sliced(api, "n1")
    run = Run(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until(lambda: "n1: draining" in run.text)
        api.remove("resourceslices", "s-n1")
        await trio.sleep(2)
        sliced(api, "n1")
        await trio.sleep(60)
        assert run.clean is None
        api.remove("resourceslices", "s-n1")
    assert run.clean is True


async def test_a_plugin_that_starts_anew_gets_its_time_and_one_that_does_not_is_cleared(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    for node in ("new", "dead"):
        sliced(api, node, ready=False)
    sliced(api, "gone", ready=None)
    run = Run(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(20)
        assert {body["metadata"]["name"] for body in api.of("resourceslices")} == {"s-new", "s-dead"}
        plugin(api, "new", ready=True)
        await until(lambda: ("resourceslices", "", "s-dead") not in api.objects)
        assert ("resourceslices", "", "s-new") in api.objects
        api.remove("resourceslices", "s-new")
    assert run.clean is False
    assert "node dead: no plugin is Ready on it" in run.left and "node gone: there is no such Node" in run.left and "new" not in run.left
    plugin(api, "dead", ready=True)
    again = Run(api, settings=False)
    await again()
    assert again.clean is True


async def test_classic_states_and_leases_go_and_the_leaders_lease_with_the_leader(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    for node in ("n1", "dead"):
        cluster.node(node, [gpu(1)])
        cluster.api.put("nodes", {"metadata": {"name": node}})
    cluster.api.put("leases", {"metadata": {"name": "gpu-controller"}}, namespace=NAMESPACE)
    cluster.api.put("leases", {"metadata": {"name": "somebody-elses"}}, namespace=NAMESPACE)
    plugin(cluster.api, "n1", ready=True)
    plugin(cluster.api, "x", ready=True, component="controller")
    run = Run(cluster.api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until(lambda: ("gpuallocationstates", NAMESPACE, "dead") not in cluster.api.objects)
        assert ("gpuallocationstates", NAMESPACE, "n1") in cluster.api.objects
        cluster.api.remove("gpuallocationstates", "n1", namespace=NAMESPACE)
    assert run.clean is False and "node dead" in run.left and "n1" not in run.left
    assert [lease["metadata"]["name"] for lease in cluster.api.of("leases")] == ["gpu-controller", "somebody-elses"]
    cluster.api.remove("pods", "controller-x", namespace=NAMESPACE)
    again = Run(cluster.api)
    await again()
    assert again.clean is True and [lease["metadata"]["name"] for lease in cluster.api.of("leases")] == ["somebody-elses"]


async def test_a_claim_that_nobody_uses_is_named_and_stays(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    status = {"driverName": "gpu.resource.intel.com", "allocation": {"resourceHandles": []}}
    cluster.api.put("resourceclaims", {"metadata": {"name": "c"}, "spec": {}, "status": status}, namespace="default")
    run = Run(cluster.api)
    await run()
    assert run.clean is False and "claim default/c (reserved for nobody): it belongs to its user" in run.left
    assert cluster.api.of("resourceclaims")


async def test_at_the_deadline_nothing_of_a_living_node_is_touched(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [])
    cluster.api.put("nodes", {"metadata": {"name": "n1"}})
    cluster.api.put("leases", {"metadata": {"name": "gpu-controller"}}, namespace=NAMESPACE)
    plugin(cluster.api, "n1", ready=True)
    run = Run(cluster.api, timeout=60)
    await run()
    assert run.clean is False and "node n1: draining" in run.left
    assert cluster.api.of("gpuallocationstates") and len(cluster.api.of("leases")) == 2


async def test_without_settings_to_set_nobody_is_waited_for(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    sliced(api, "n1", devices=1)
    run = Run(api, settings=False)
    began = trio.current_time()
    await run()
    assert run.clean is False and "there is no ConfigMap" in run.text and "n1" in run.left
    assert trio.current_time() - began < 10


async def test_a_plugin_that_never_became_ready_is_named(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    plugin(api, "n1", ready=False)
    run = Run(api)
    await run()
    assert run.clean is False and "node n1: its plugin is not Ready, so nobody knows" in run.left


async def test_trouble_passes_and_refusals_are_left(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures = [("get", Unavailable(0, "Down", "down")), ("patch", Conflict(409, "Conflict", "x"))]
    run = Run(api)
    await run()
    assert run.clean is True
    api.failures = [("get", Forbidden(403, "Forbidden", "may not"))]
    refused = Run(api)
    await refused()
    assert refused.clean is False and "may not" in refused.text
    api.failures = [("list", Forbidden(403, "Forbidden", "may not list"))] * 400
    blind = Run(api)
    await blind()
    assert blind.clean is False and "cannot be read" in blind.left


async def test_a_cluster_without_dra_has_nothing(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.offer = ServedApi("v1.33.1", ())
    run = Run(api)
    await run()
    assert run.clean is True and "neither slices nor claims" in run.text
