"""The simulated kubelets of 1.28 to 1.30 against a plugin on grpcio's server, and the whole way from a template to a container."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import trio

from tests.fakes.classic_plugin import ClassicPlugin
from tests.fakes.tiny_controller import TinyController
from tools.simcluster import kinds
from tools.simcluster.classic import annotations
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kubelet import Timing
from tools.simcluster.plugin_calls import MESSAGES

DRIVER = "gpu.resource.intel.com"
QUICK = Timing(reconcile=0.02, prepare_again=0.1, unprepare_again=0.05, start_again=0.1, wipe_after=0.3)
PREPARE, UNPREPARE = "/v1alpha3.Node/NodePrepareResources", "/v1alpha3.Node/NodeUnprepareResources"


@pytest.fixture
def short_dir() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sim", dir="/tmp") as path:
        yield path


def plugin_for(cluster: ClassicCluster, node: str = "node1", *, kind: type[ClassicPlugin] = ClassicPlugin, **more: Any) -> ClassicPlugin:
    layout, kubelet = cluster.layout_of(node), cluster.kubelets[node]
    return kind(f"{layout.kubelet}/plugins", kubelet.registry_directory, layout.cdi, **more)


@asynccontextmanager
async def opened(
    root: str, kubernetes: str, *, driver: str = DRIVER, handles: int = 1, devices: int = 4, **more: Any
) -> AsyncIterator[tuple[ClassicCluster, TinyController]]:
    async with ClassicCluster(root, kubernetes=kubernetes, timing=QUICK, **more).running() as cluster:
        cluster.create_resource_class("gpu", driver)
        controller = TinyController(cluster, driver, devices=devices, handles=handles)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.run)
            yield cluster, controller
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kubernetes", ["1.28", "1.29", "1.30"])
async def test_from_a_template_to_a_container_and_back(short_dir: str, kubernetes: str) -> None:
    async with opened(short_dir, kubernetes) as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("t", "gpu", template=True)
            cluster.create_pod("p", templates={"gpu": "t"})
            await cluster.wait_pod("p")
            [claim] = cluster.claims_of_pod("p")
            uid = claim["metadata"]["uid"]
            assert plugin.calls == [(PREPARE, [uid])]
            assert plugin.handles == [f"{claim['metadata']['name']} on node1"]
            assert [node["path"] for node in cluster.injected("p")["main"].device_nodes] == [f"/dev/{uid}-gpu-0"]
            cluster.delete_pod("p")
            await cluster.wait_pod_gone("p")
            assert plugin.calls == [(PREPARE, [uid]), (UNPREPARE, [uid])]
            assert len(set(plugin.handles)) == 1
            await cluster.wait(kinds.CLAIM, lambda claims: not claims, "the claim gone")
            assert os.listdir(cluster.layout.cdi) == []


async def test_three_nodes_have_a_kubelet_and_a_plugin_each(short_dir: str) -> None:
    nodes = ["node1", "node2", "node3"]
    async with opened(short_dir, "1.28", devices=1, more_nodes=nodes[1:]) as (cluster, _):
        with contextlib.ExitStack() as stack:
            plugins = {node: stack.enter_context(plugin_for(cluster, node)) for node in nodes}
            for node in nodes:
                await cluster.wait_plugin(DRIVER, node=node)
            cluster.create_resource_claim("t", "gpu", template=True)
            for name in ("a", "b", "c"):
                cluster.create_pod(name, templates={"gpu": "t"})
            used = {(await cluster.wait_pod(name))["spec"]["nodeName"] for name in ("a", "b", "c")}
            assert used == set(nodes)
            assert [len(plugin.calls) for plugin in plugins.values()] == [1, 1, 1]
            assert {len(os.listdir(cluster.layout_of(node).cdi)) for node in nodes} == {1}


class OldPlugin(ClassicPlugin):
    """Has v1alpha2.Node alone, which takes one claim a call."""

    def __enter__(self) -> OldPlugin:
        self.unknown_services.add("v1alpha3.Node")
        super().__enter__()
        assert self._server is not None
        self._server.add_generic_rpc_handlers((_Single(self),))
        return self


class _Single(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, plugin: OldPlugin) -> None:
        self._plugin = plugin

    def service(self, call: Any) -> Any:
        plugin, method = self._plugin, call.method
        if method.startswith("/v1alpha3.Node/"):
            plugin.calls.append((method, []))
            return None
        if not method.startswith("/v1alpha2.Node/"):
            return None

        def answer(request: Any, _context: grpc.ServicerContext) -> Any:
            plugin.calls.append((method, [request.claim_uid]))
            if method.endswith("/NodeUnprepareResource"):
                plugin.remove_cdi(request.claim_uid)
                return MESSAGES["InfoRequest"]()
            plugin.handles.append(request.resource_handle)
            return MESSAGES["HandleResponse"](cdi_devices=plugin.write_cdi(request.claim_uid))

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=MESSAGES["HandleRequest"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@pytest.mark.parametrize(("kubernetes", "asked_first"), [("1.28", [PREPARE, UNPREPARE]), ("1.29", [PREPARE])])
async def test_a_plugin_of_one_claim_a_call_is_found_out(short_dir: str, kubernetes: str, asked_first: list[str]) -> None:
    """1.28 forgets it with its connection."""
    async with opened(short_dir, kubernetes) as (cluster, _):
        with plugin_for(cluster, kind=OldPlugin) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            await cluster.wait_pod("p")
            cluster.delete_pod("p")
            await cluster.wait_pod_gone("p")
            uid = cluster.claim("c")["metadata"]["uid"]
            assert plugin.handles == ["c on node1"]
            single = [("/v1alpha2.Node/NodePrepareResource", [uid]), ("/v1alpha2.Node/NodeUnprepareResource", [uid])]
            assert [call for call in plugin.calls if call[1]] == single
            assert [method for method, uids in plugin.calls if not uids and "Watch" not in method] == asked_first


async def test_an_error_is_told_in_an_event_and_a_prepare_that_failed_is_never_undone(short_dir: str) -> None:
    async with opened(short_dir, "1.28") as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            plugin.errors = ["the GPU is on fire"] * 100
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            assert "default/c: the GPU is on fire" in await cluster.wait_event("p", "FailedPrepareDynamicResources")
            cluster.delete_pod("p")
            await cluster.wait_pod_gone("p")
            assert set(plugin.methods()) == {"NodePrepareResources"}


async def test_an_allocation_without_handles_is_one_call_with_empty_data(short_dir: str) -> None:
    async with opened(short_dir, "1.28", handles=0) as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            await cluster.wait_pod("p")
            assert plugin.handles == [""]


async def test_two_handles_for_one_driver_cannot_be_answered(short_dir: str) -> None:
    async with opened(short_dir, "1.28", handles=2) as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            assert "left out 1 claims" in await cluster.wait_event("p", "FailedPrepareDynamicResources")
            assert len(plugin.calls[0][1]) == 2 and len(set(plugin.calls[0][1])) == 1


async def test_a_claim_that_no_container_uses_takes_no_call(short_dir: str) -> None:
    async with opened(short_dir, "1.28") as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"}, containers={"main": []})
            await cluster.wait_pod("p")
            assert plugin.calls == []


async def test_the_name_of_the_driver_has_26_characters_at_most(short_dir: str) -> None:
    driver = "abcdefghijklmnop.intel.comx"
    assert len(driver) == 27
    async with opened(short_dir, "1.28", driver=driver) as (cluster, _):
        with plugin_for(cluster, name=driver) as plugin:
            await cluster.wait_plugin(driver)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            assert "too long" in await cluster.wait_event("p", "FailedPrepareDynamicResources")
            plugin.names = []
            await cluster.wait_pod("p")


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("intel.com/gpu=0000-03-00-0", True),
        ("intel.com/gpu=a:b.c_d-e", True),
        ("k8s.intel.com/claim=x", True),
        ("intel.com/gpu.vf=x", False),
        ("1ntel.com/gpu=x", False),
        ("intel.com/gpu=x-", False),
        ("intel.com/gpu", False),
        ("/gpu=x", False),
    ],
)
def test_the_parser_of_names(name: str, is_taken: bool) -> None:
    uid = "0f5c1c9e-7b6c-4a51-8a09-111111111111"
    if is_taken:
        assert annotations.made(DRIVER, uid, [name]) == {f"cdi.k8s.io/{DRIVER}_{uid}": name}
        return
    with pytest.raises(ValueError, match="CDI annotation value error"):
        annotations.made(DRIVER, uid, [name])


@pytest.mark.parametrize(("versions", "is_taken"), [(["v1.DRAPlugin", "v1beta1.DRAPlugin", "1.0.0"], True), (["v1.DRAPlugin"], False)])
async def test_plugins_register_by_a_number(short_dir: str, versions: list[str], is_taken: bool) -> None:
    async with opened(short_dir, "1.30") as (cluster, _):
        with plugin_for(cluster, versions=versions) as plugin:
            await plugin.until(lambda: plugin.verdicts)
            assert plugin.verdicts[0][0] is is_taken


async def test_after_a_restart_of_the_kubelet_another_pod_prepares_again_and_the_last_one_unprepares(short_dir: str) -> None:
    async with opened(short_dir, "1.29") as (cluster, controller):
        controller.shareable = True
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            for name in ("one", "two"):
                cluster.create_pod(name, claims={"gpu": "c"})
                await cluster.wait_pod(name)
            assert plugin.methods() == ["NodePrepareResources"]
            await cluster.kubelet.restart()
            await cluster.wait_plugin(DRIVER)
            cluster.create_pod("three", claims={"gpu": "c"})
            await cluster.wait_pod("three")
            assert plugin.methods() == ["NodePrepareResources"] * 2
            for name in ("one", "two", "three"):
                cluster.delete_pod(name)
                await cluster.wait_pod_gone(name)
            assert plugin.methods() == ["NodePrepareResources"] * 2 + ["NodeUnprepareResources"]


async def test_a_claim_of_the_same_name_is_taken_for_the_old_one(short_dir: str) -> None:
    """The driver is not asked: the pod runs with what the old claim was given."""
    async with opened(short_dir, "1.28") as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("p", claims={"gpu": "c"})
            await cluster.wait_pod("p")
            old = cluster.claim("c")["metadata"]["uid"]
            plugin.errors = ["busy"] * 1000
            cluster.delete_pod("p", grace_seconds=0)
            cluster.registry.delete(kinds.CLAIM, "c", "default")
            await cluster.wait(kinds.CLAIM, lambda claims: not claims, "the claim gone")
            cluster.create_resource_claim("c", "gpu")
            cluster.create_pod("q", claims={"gpu": "c"})
            await cluster.wait_pod("q")
            assert [node["path"] for node in cluster.injected("q")["main"].device_nodes] == [f"/dev/{old}-gpu-0"]
            assert plugin.methods().count("NodePrepareResources") == 1


async def test_a_kubelet_of_1_30_finds_no_claims_on_a_server_of_1_31(short_dir: str) -> None:
    async with opened(short_dir, "1.30") as (cluster, _):
        with plugin_for(cluster) as plugin:
            await cluster.wait_plugin(DRIVER)
            cluster.upgrade("1.31")
            assert cluster.store.all(kinds.CLAIM) == []
            pod = cluster.create_pod("p", claims={"gpu": "c"}, nodeName="node1")
            assert pod["spec"]["resourceClaims"] == [{"name": "gpu", "resourceClaimName": "c"}]
            message = await cluster.wait_event("p", "FailedPrepareDynamicResources")
            assert "the server could not find the requested resource" in message
            await cluster.kubelet.restart("v1.31.14")
            node = cluster.registry.get(kinds.NODE, "node1")
            assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.31.14"
            assert plugin.calls == []
