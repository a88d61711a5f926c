"""The simulated kubelet against a plugin on another gRPC implementation's server side, in real time with shortened waits: what
tests/contracts/test_kubelet.py does not ask of a real one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from tests.fakes.tiny_plugin import TinyPlugin
from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kubelet import Timing

SHARE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
QUICK = Timing(
    reconcile=0.02, prepare_again=0.1, unprepare_again=0.05, start_again=0.1, wipe_after=0.3, health_again=0.05, health_timeout=0.3
)


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


class SharingPlugin(TinyPlugin):
    """Says of its devices whose share they are."""

    def prepare(self, method: str, request: Any) -> Any:
        answer = super().prepare(method, request)
        for claim in request.claims:
            for device in answer.claims[claim.uid].devices:
                device.share_id = SHARE
        return answer


@pytest.mark.parametrize(
    ("kubernetes", "versions", "share"),
    [
        ("1.34", ["v1.DRAPlugin"], ""),
        ("1.35", ["v1.DRAPlugin"], SHARE),
        ("1.35", ["v1beta1.DRAPlugin"], ""),
        ("1.37", ["v1.DRAPlugin"], SHARE),
    ],
)
async def test_the_share_of_a_device_is_remembered_as_it_was_answered(
    short_dir: str, kubernetes: str, versions: list[str], share: str
) -> None:
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK).running() as cluster:
        directories = f"{cluster.layout.kubelet}/plugins", cluster.kubelet.registry_directory, cluster.layout.cdi
        with SharingPlugin(*directories, versions=versions):
            await cluster.wait_plugin()
            cluster.create(kinds.SLICE, slice_of("gpu-0"))
            claim = cluster.create_claim("c")
            cluster.create_pod("p", claims={"gpu": "c"})
            await cluster.wait_pod("p")
            [device] = cluster.kubelet.memory.claims[claim["metadata"]["uid"]].devices["gpu.intel.com"]
            assert (device.device, device.share) == ("gpu-0", share)


async def test_a_share_without_its_id_is_no_failure(cluster: SimCluster, plugin: TinyPlugin) -> None:
    """The kubelet only hands the ID on: what is missing is missing in the pod resources API, and the pod runs."""
    shared = {"name": "gpu-0", "allowMultipleAllocations": True}
    cluster.registry.amend(kinds.SLICE, cluster.slices()[0], lambda body: body["spec"].update(devices=[shared]))
    claims = [cluster.create_claim(name) for name in ("c", "d")]
    for claim in claims:
        name = claim["metadata"]["name"]
        cluster.create_pod(name, claims={"gpu": name})
        await cluster.wait_pod(name)
        assert cluster.claim(name)["status"]["allocation"]["devices"]["results"][0]["shareID"]
        [device] = cluster.kubelet.memory.claims[claim["metadata"]["uid"]].devices["gpu.intel.com"]
        assert device.share == ""


@pytest.mark.parametrize(("kubernetes", "versions"), [("1.31", ["v1.DRAPlugin"]), ("1.34", ["1.0.0"]), ("1.36", [])])
async def test_a_useless_list_of_versions_is_refused(short_dir: str, kubernetes: str, versions: list[str]) -> None:
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK).running() as cluster:
        with plugin_for(cluster, versions=versions) as plugin:
            await plugin.until(lambda: plugin.verdicts)
        assert plugin.verdicts[0][0] is False
        assert plugin.verdicts[0][1]


HEALTH = ["v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]
V1_DRA, ALPHA_HEALTH, V1_HEALTH = "v1.DRAPlugin", "/v1alpha1.DRAResourceHealth", "/v1.DRAResourceHealth"


def healths(pod: dict[str, Any]) -> list[tuple[str, str]]:
    said = [status for each in pod["status"].get("containerStatuses") or () for status in each.get("allocatedResourcesStatus") or ()]
    return [(each["health"], each.get("message", "")) for status in said for each in status["resources"]]


async def until_health(cluster: SimCluster, expected: list[tuple[str, str]]) -> None:
    await cluster.wait(kinds.POD, lambda pods: [healths(pod) for pod in pods] == [expected], f"a pod with {expected}")


async def one_pod(cluster: SimCluster) -> None:
    await cluster.wait_plugin()
    cluster.create(kinds.SLICE, slice_of("gpu-0"))
    cluster.create_claim("c")
    cluster.create_pod("p", claims={"gpu": "c"})
    await cluster.wait_pod("p")


@pytest.mark.parametrize(
    ("kubernetes", "announced", "service", "said"),
    [
        ("1.34", HEALTH, ALPHA_HEALTH, ("Unhealthy", "")),
        ("1.36", HEALTH, ALPHA_HEALTH, ("Unhealthy", "on fire")),
        ("1.36", [], ALPHA_HEALTH, ("Unhealthy", "on fire")),
        ("1.37", HEALTH, V1_HEALTH, ("Unhealthy", "on fire")),
        ("1.37", HEALTH[1:], ALPHA_HEALTH, ("Unhealthy", "on fire")),
    ],
)
async def test_each_release_watches_health_by_its_service(
    short_dir: str, kubernetes: str, announced: list[str], service: str, said: tuple[str, str]
) -> None:
    gates = {"ResourceHealthStatus": True}
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK, gates=gates).running() as cluster:
        with plugin_for(cluster, versions=[V1_DRA, *announced]) as plugin:
            plugin.say({"gpu-0": (2, "on fire")}, timeout=1000)
            await one_pod(cluster)
            if kubernetes == "1.34":  # where the time-out of a device is not read
                await until_health(cluster, [("Unknown", "")])
                plugin.say({"gpu-0": (2, "on fire")}, timeout=1000)
            await until_health(cluster, [said])
            assert f"{service}/NodeWatchResources" in [method for method, _ in plugin.calls]


@pytest.mark.parametrize(
    ("kubernetes", "announced", "gate"), [("1.33", HEALTH, None), ("1.35", HEALTH, None), ("1.36", HEALTH, False), ("1.37", [], None)]
)
async def test_who_does_not_watch_health_says_nothing_of_it(
    short_dir: str, kubernetes: str, announced: list[str], gate: bool | None
) -> None:
    gates = {} if gate is None else {"ResourceHealthStatus": gate}
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK, gates=gates).running() as cluster:
        with plugin_for(cluster, versions=["v1beta1.DRAPlugin", V1_DRA, *announced]) as plugin:
            plugin.say({"gpu-0": (2, "on fire")})
            await one_pod(cluster)
            assert "NodeWatchResources" not in plugin.methods()
            assert healths(cluster.registry.get(kinds.POD, "p", "default")) in ([], [("Unknown", "")])


async def test_a_device_that_is_not_heard_of_is_unknown_after_its_time_out(short_dir: str) -> None:
    async with SimCluster(short_dir, kubernetes="1.37", timing=QUICK).running() as cluster:
        with plugin_for(cluster, versions=[V1_DRA, *HEALTH]) as plugin:
            plugin.say({"gpu-0": (1, "")}, timeout=1)
            await one_pod(cluster)
            await until_health(cluster, [("Healthy", "")])
            await until_health(cluster, [("Unknown", "")])
            plugin.say({"gpu-0": (1, "")}, timeout=1000)
            await until_health(cluster, [("Healthy", "")])


async def test_a_stream_that_ends_leaves_everything_unknown_until_the_next(short_dir: str) -> None:
    slowly = msgspec.structs.replace(QUICK, health_again=0.5)
    async with SimCluster(short_dir, kubernetes="1.37", timing=slowly).running() as cluster:
        with plugin_for(cluster, versions=[V1_DRA, *HEALTH]) as plugin:
            plugin.say({"gpu-0": (1, "")}, timeout=1000)
            await one_pod(cluster)
            await until_health(cluster, [("Healthy", "")])
            await plugin.end_watches()
            await until_health(cluster, [("Unknown", "")])
            await until_health(cluster, [("Healthy", "")])


@pytest.mark.parametrize(("kubernetes", "again"), [("1.36", True), ("1.37", False)])
async def test_who_is_refused_asks_again_up_to_1_36(short_dir: str, kubernetes: str, again: bool) -> None:
    async with SimCluster(short_dir, kubernetes=kubernetes, timing=QUICK).running() as cluster:
        with plugin_for(cluster, versions=[V1_DRA, *HEALTH]) as plugin:
            await one_pod(cluster)
            plugin.say({"gpu-0": (1, "")}, timeout=1000)
            cluster.create_claim("other")
            if again:
                await until_health(cluster, [("Healthy", "")])
            else:
                await cluster.kubelet.restart()  # only a new registration makes it ask
                await until_health(cluster, [("Healthy", "")])
