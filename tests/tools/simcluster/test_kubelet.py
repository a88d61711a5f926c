"""The simulated kubelet against a plugin on another gRPC implementation's server side, in real time with shortened waits: what
tests/contracts/test_kubelet.py does not ask of a real one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.fakes.tiny_plugin import TinyPlugin
from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kubelet import Timing

QUICK = Timing(reconcile=0.02, prepare_again=0.1, unprepare_again=0.05, start_again=0.1, wipe_after=0.3)


@pytest.fixture
def short_dir() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sim", dir="/tmp") as path:
        yield path


def slice_of(*names: str) -> dict[str, object]:
    pool = {"name": "node1", "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": name} for name in names]
    return {"metadata": {"name": "s"}, "spec": {"driver": "gpu.intel.com", "nodeName": "node1", "pool": pool, "devices": devices}}


def plugin_for(cluster: SimCluster, **more: object) -> TinyPlugin:
    return TinyPlugin(f"{cluster.layout.kubelet}/plugins", cluster.kubelet.registry_directory, cluster.layout.cdi, **more)  # type: ignore[arg-type]


@pytest.fixture
async def cluster(short_dir: str) -> AsyncIterator[SimCluster]:
    async with SimCluster(short_dir, kubernetes="1.36", timing=QUICK).running() as running:
        yield running


@pytest.fixture
async def plugin(cluster: SimCluster) -> AsyncIterator[TinyPlugin]:
    with plugin_for(cluster) as tiny:
        await cluster.wait_plugin()
        cluster.create(kinds.SLICE, slice_of("gpu-0", "gpu-1"))
        yield tiny


async def test_after_a_reboot_prepare_is_called_again(cluster: SimCluster, plugin: TinyPlugin) -> None:
    cluster.create_claim("c")
    cluster.create_pod("p", claims={"gpu": "c"})
    await cluster.wait_pod("p")
    before = cluster.kubelet.boot_id
    await cluster.kubelet.reboot()
    assert cluster.kubelet.boot_id != before
    await plugin.until(lambda: plugin.methods() == ["NodePrepareResources"] * 2)
    assert len(os.listdir(cluster.layout.cdi)) == 1


async def test_a_container_whose_cdi_file_no_runtime_takes_does_not_start(cluster: SimCluster, plugin: TinyPlugin) -> None:
    plugin.cdi_version = "9.9.9"
    cluster.create_claim("c")
    cluster.create_pod("p", claims={"gpu": "c"})
    message = await cluster.wait_event("p", "Failed")
    assert "unresolvable CDI devices" in message
    assert "9.9.9" in message
    assert cluster.registry.get(kinds.POD, "p", "default")["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("kubernetes", "versions", "service"),
    [
        ("1.31", ["v1.DRAPlugin", "1.0.0"], "v1alpha3.Node"),
        ("1.32", ["v1.DRAPlugin", "v1beta1.DRAPlugin"], "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"),
        ("1.33", ["1.0.0"], "v1alpha3.Node"),
        ("1.34", ["v1beta1.DRAPlugin", "v1.DRAPlugin"], "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"),
        ("1.37", ["v1.DRAPlugin", "v1beta1.DRAPlugin"], "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"),
    ],
)
async def test_each_release_chooses_its_service(short_dir: str, kubernetes: str, versions: list[str], service: str) -> None:
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK).running() as cluster:
        with plugin_for(cluster, versions=versions) as plugin:
            await cluster.wait_plugin()
            cluster.create(kinds.SLICE, slice_of("gpu-0"))
            cluster.create_claim("c")
            cluster.create_pod("p", claims={"gpu": "c"})
            await cluster.wait_pod("p")
            assert plugin.calls[0][0] == f"/{service}/NodePrepareResources"


@pytest.mark.parametrize(("kubernetes", "versions"), [("1.31", ["v1.DRAPlugin"]), ("1.34", ["1.0.0"]), ("1.36", [])])
async def test_a_useless_list_of_versions_is_refused(short_dir: str, kubernetes: str, versions: list[str]) -> None:
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK).running() as cluster:
        with plugin_for(cluster, versions=versions) as plugin:
            await plugin.until(lambda: plugin.verdicts)
        assert plugin.verdicts[0][0] is False
        assert plugin.verdicts[0][1]
