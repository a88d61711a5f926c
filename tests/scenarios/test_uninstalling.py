"""`gpu-controller cleanup` against API servers with the rules of real ones, with the shipped plugins on the nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fakes import plugin_process
from tests.fakes.classic_programs import NAMESPACE, Programs, programs
from tests.fakes.plugin_process import SETTINGS, Node
from tests.fakes.uninstalling import Ended, Installed
from tools.simcluster import kinds
from tools.simcluster.kinds import CLAIM, LEASE, SLICE, TAINT_RULE, Json

pytestmark = pytest.mark.slow

STATES = "gpu.resource.intel.com/v1alpha2"


@asynccontextmanager
async def installed(release: str = "1.34", **more: Any) -> AsyncIterator[tuple[Node, Installed]]:
    """A plugin serves the node, and reads what the ConfigMap says."""
    async with plugin_process.node(kubernetes=release, **more) as here, trio.open_nursery() as nursery:
        driver = Installed(here.cluster, "intel-gpu-dra", here.settings)
        driver.pod(here.cluster.node)
        nursery.start_soon(driver.project)
        await here.start()
        await here.cluster.wait(SLICE, lambda slices: devices(slices) == 4, "the node's devices", deadline=20)
        yield here, driver
        nursery.cancel_scope.cancel()


def devices(slices: list[Json]) -> int:
    return sum(len(item["spec"].get("devices") or ()) for item in slices)


def stranger(here: Node, node: str) -> None:
    """A slice of ours on a node without a plugin."""
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.intel.com", "nodeName": node, "pool": pool, "devices": []}
    here.cluster.registry.create(SLICE, {"metadata": {"name": f"s-{node}"}, "spec": spec})


async def run(here: Node, name: str) -> None:
    here.cluster.create_claim(name, template=True)
    here.cluster.create_pod(name, templates={"gpu": name})
    await here.cluster.wait_pod(name, deadline=20)


@pytest.mark.parametrize("release", ["1.31", "1.33", "1.37"])
async def test_an_idle_cluster_is_clean_and_stays_so(release: str) -> None:
    async with installed(release) as (here, driver):
        lease = {"metadata": {"name": "gpu-controller"}, "spec": {}}
        here.cluster.create(LEASE, lease, driver.namespace)
        if release in ("1.33", "1.37"):
            for name, label in (("ours", "gpu.intel.com/alert"), ("theirs", "example.com/x")):
                taint = {"key": "gpu.intel.com/alert", "value": "firing", "effect": "NoSchedule"}
                spec = {"deviceSelector": {"driver": "gpu.intel.com", "pool": "node1", "device": "x"}, "taint": taint}
                here.cluster.registry.create(TAINT_RULE, {"metadata": {"name": name, "labels": {label: "true"}}, "spec": spec})
        ended = await driver.cleanup()
        assert ended.code == 0 and "clean: nothing" in ended.said, ended.said
        assert driver.text.startswith("# Ours, see wiki.\n") and "decommission: true" in driver.text
        assert here.cluster.slices() == [] and here.cluster.store.all(LEASE, driver.namespace) == []
        assert [rule["metadata"]["name"] for rule in here.cluster.store.all(TAINT_RULE)] == (["theirs"] if release != "1.31" else [])
        again = await driver.cleanup()
        assert again.code == 0 and "as it was already" in again.said


async def test_a_claim_is_named_with_its_pod_until_it_ends() -> None:
    async with installed() as (here, driver):
        await run(here, "a")
        early = await driver.cleanup(timeout="3s")
        assert early.code == 1 and "not done within 3 s" in early.said, early.said
        assert "left behind:" in early.said and "(reserved for a)" in early.said
        ended: list[Ended] = []
        async with trio.open_nursery() as nursery:

            async def clean() -> None:
                ended.append(await driver.cleanup())

            nursery.start_soon(clean)
            here.cluster.delete_pod("a")
        assert ended[0].code == 0, ended[0].said


async def test_it_can_be_killed_and_taken_back() -> None:
    async with installed() as (here, driver):
        await run(here, "a")
        assert (await driver.cleanup(timeout="1s")).code == 1
        driver.set_text(SETTINGS)
        await here.cluster.wait(SLICE, lambda slices: devices(slices) == 4, "everything offered again", deadline=20)
        await run(here, "b")


async def test_nodes_that_cannot_clean_themselves_are_cleared_and_named() -> None:
    async with installed() as (here, driver):
        stranger(here, "gone")  # there is no such Node
        here.cluster.create(kinds.NODE, {"metadata": {"name": "dead"}, "spec": {}})
        stranger(here, "dead")
        driver.pod("dead", ready=False)
        ended = await driver.cleanup(timeout="45s")
        assert ended.code == 1, ended.said
        assert here.cluster.slices() == []
        assert "node gone: there is no such Node any more, so it was not cleaned" in ended.said
        assert "node dead: no plugin is Ready on it, so it was not cleaned" in ended.said
        assert "by hand" in ended.said
        assert "node1" not in ended.said.partition("left behind:")[2]


async def test_settings_that_cannot_be_changed_are_left_and_said() -> None:
    async with installed() as (here, driver):
        driver.set_text("{apiVersion: gpu.intel.com/v1alpha1, kind: NodePluginConfiguration, probes: {port: 0}}\n")
        before = driver.text
        ended = await driver.cleanup(timeout="5s")
        assert ended.code == 1 and "set it by hand" in ended.said, ended.said
        assert driver.text == before and devices(here.cluster.slices()) == 4


async def test_misuse_is_told_from_what_is_left(tmp_path: Path) -> None:
    async with installed() as (_, driver):
        wrong = await driver.cleanup(timeout="soon")
        assert wrong.code == 2 and "is not a duration" in wrong.said
        absent = await driver.cleanup("--settings-config-map", "other", timeout="5s")
        assert absent.code == 1 and "there is no ConfigMap intel-gpu-dra/other" in absent.said


@asynccontextmanager
async def installed_classic(release: str) -> AsyncIterator[tuple[Programs, Installed]]:
    async with programs(release) as here, trio.open_nursery() as nursery:
        driver = Installed(here.cluster, NAMESPACE, here.settings)
        nursery.start_soon(driver.project)
        await here.start_controller("controller")
        driver.pod("node1", component="controller")
        for node in ("node1", "node2"):
            driver.pod(node)
            await here.start_plugin(node)
        await here.wait_ready("node1", "node2")
        yield here, driver
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("release", ["1.28", "1.30"])
async def test_classic_nodes_are_cleaned_when_a_vf_is_given_back(release: str) -> None:
    async with installed_classic(release) as (here, driver):
        here.claim("vf", type="vf", memory=3500)
        here.pod("a", "vf")
        await here.cluster.wait_pod("a", deadline=30)
        early = await driver.cleanup(timeout="3s")
        assert early.code == 1 and "claim default/vf (reserved for a)" in early.said, early.said
        ended: list[Ended] = []
        async with trio.open_nursery() as nursery:

            async def clean() -> None:
                ended.append(await driver.cleanup())

            nursery.start_soon(clean)
            here.cluster.delete_pod("a")
            await here.cluster.wait_pod_gone("a", deadline=30)
            here.cluster.registry.delete(CLAIM, "vf", "default")
            await here.wait_no_claims()
        assert ended[0].code == 0 and "the running controller's (controller-node1)" in ended[0].said, ended[0].said
        assert here.cluster.store.all(here.cluster.registry.kind(STATES, "GpuAllocationState")) == []
        assert {lease["metadata"]["name"] for lease in here.cluster.store.all(LEASE, NAMESPACE)} == {"gpu-controller"}
