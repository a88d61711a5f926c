"""The whole command beside an embedded API server, as people and scripts call it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from nursery_apps.kubectl import __main__ as program
from tests.fakes.gpu_clusters import device, is_type, selectors, slice_of
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import NODE, SLICE

ROOT = Path(__file__).parents[3]
CARD, VF = "0000-01-00-0-0x56c0", "0000-02-00-1-0x56c0"
DAEMONS_ALONE = {"trio", "grpclib", "h11", "h2", "httpcore", "hyperframe", "inotify_simple", "pyudev", "prometheus_client"}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded."""
    monkeypatch.setenv("COLUMNS", "200")


class Kubectl:
    """Runs the command against a cluster, in a thread: it blocks, and the server it asks is a task here."""

    def __init__(self, cluster: SimCluster, capsys: pytest.CaptureFixture[str]) -> None:
        self._cluster, self._capsys = cluster, capsys

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        given = ["--kubeconfig", self._cluster.kubeconfig_path, *arguments]
        self._capsys.readouterr()
        with trio.fail_after(30):
            ended = await trio.to_thread.run_sync(partial(program.main, given))
        said = self._capsys.readouterr()
        assert ended == code, said
        return said.out + said.err

    async def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(await self(*arguments, "-o", "json", code=code))


def offer(cluster: SimCluster) -> None:
    """A card, and VFs of another."""
    slice_ = slice_of(device(1), device(1, "vf", card=2, memory="4Gi"), device(2, "vf", card=2, memory="4Gi"), node="node1")
    cluster.create(SLICE, {**slice_, "metadata": {"name": "s"}})


def cluster_of(path: Path, kubernetes: str, **more: Any) -> SimCluster:
    return SimCluster(str(path), kubernetes=kubernetes, with_kubelet=False, **more)


async def pending(cluster: SimCluster, *pods: str) -> None:
    for pod in pods:
        await cluster.wait_event(pod, "FailedScheduling")


@pytest.mark.parametrize("kubernetes", ["1.31", "1.32", "1.33", "1.34", "1.37"])
async def test_every_structured_release_is_read(kubernetes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = cluster_of(tmp_path, kubernetes)
    cluster.create(NODE, {"metadata": {"name": "node1"}})
    offer(cluster)
    cluster.create_claim("whole", selectors=selectors(is_type("gpu")), namespace="ml")
    cluster.create_pod("trainer", claims={"gpu": "whole"}, namespace="ml")
    cluster.create_claim("second", selectors=selectors(is_type("gpu")))
    cluster.create_claim("both", device_class="gpu-vf.intel.com", count=3)
    for name in ("second", "both"):
        cluster.create_pod(name, claims={"gpu": name})
    async with cluster.running():
        await pending(cluster, "second", "both")
        kubectl = Kubectl(cluster, capsys)
        listed = await kubectl("list")
        assert "ml/trainer (claim whole)" in listed and f"├ {VF}" in listed
        body = await kubectl.json("list")
        assert (body["apiVersion"], body["kind"]) == ("kubectl.gpu.intel.com/v1", "GpuList")
        [card, cut] = body["nodes"][0]["cards"]
        assert card["whole"]["holders"][0]["claim"] == "whole" and [vf["vfIndex"] for vf in cut["vfs"]] == [1, 2]
        assert "trainer" in await kubectl("who", "0000:01:00.0")
        assert (await kubectl.json("who", f"node1/{VF}", code=1))["devices"][0]["state"] == "free"
        said = await kubectl("why", "pod/second", code=1)
        assert "held by claim ml/whole of pod trainer" in said and "To do: wait until pod trainer in namespace ml ends" in said
        said = await kubectl("why", "claim/both", code=1)
        assert "asks for 3, 2 fit" in said and f"{is_type('vf')} is false" not in said.splitlines()[-2]
        assert "all its claims are allocated, on node1" in await kubectl("why", "-n", "ml", "trainer", code=1)
        drawn = await kubectl("map")
        assert " A  ml/trainer" in drawn and "2 cards, 2 VFs: 1 devices in use, 2 free, 0 tainted" in drawn
        page = tmp_path / "map.html"
        assert "wrote" in await kubectl("map", "--html", str(page))
        assert "trainer" in page.read_text()


async def test_causes_that_are_not_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = cluster_of(tmp_path, "1.36")
    cluster.create(NODE, {"metadata": {"name": "node1"}})
    offer(cluster)
    cluster.create_pod("lost", templates={"gpu": "nowhere"})
    cluster.create_claim("typo", selectors=selectors('device.attributes["gpu.intel.com"].modell == "B60"'))
    cluster.create_claim("classless", device_class="gpu.nowhere")
    for name in ("typo", "classless"):
        cluster.create_pod(name, claims={"gpu": name})
    async with cluster.running():
        await pending(cluster, "lost", "typo", "classless")
        kubectl = Kubectl(cluster, capsys)
        assert "there is no ResourceClaimTemplate nowhere" in await kubectl("why", "lost", code=1)
        assert 'Key not found in map : "modell"' in await kubectl("why", "typo", code=1)
        reasons = await kubectl.json("why", "classless", code=1)
        assert reasons["explanation"]["summary"] == "claim classless: there is no DeviceClass gpu.nowhere"
        assert "FailedScheduling" in reasons["explanation"]["events"][0]


async def test_names_that_are_not_there_and_flags_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = cluster_of(tmp_path, "1.34")
    async with cluster.running():
        kubectl = Kubectl(cluster, capsys)
        assert "nothing is published" in await kubectl("list")
        for arguments, said in (
            (["who", "0000:99:00.0"], "no node has a GPU 0000:99:00.0"),
            (["why", "pod/x"], "there is no pod x in namespace default"),
            (["why", "-n", "ml", "x"], "there is no claim and no pod x in namespace ml"),
            (["why", "service/x"], "neither claim/NAME, pod/NAME nor a name"),
            (["list", "--context", "other"], "cannot use kubeconfig"),
        ):
            lines = (await kubectl(*arguments, code=2)).splitlines()
            assert len(lines) == 1 and lines[0].startswith("kubectl intel-gpu: ") and said in lines[0]


async def test_classic_dra_without_the_drivers_kinds_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = ClassicCluster(str(tmp_path), kubernetes="1.30", node="node1")
    async with cluster.running():
        kubectl = Kubectl(cluster, capsys)
        assert "nothing is published" in await kubectl("list")
        assert "nobody else allocates" in await kubectl("doctor", code=1)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nursery_apps.kubectl", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def config(path: Path, server: str) -> str:
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    body = {"clusters": [cluster], "users": [{"name": "u", "user": {}}], "contexts": [context], "current-context": "c"}
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **body}))
    return str(path)


def said_once(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 2 and ended.stdout == ""
    [line] = ended.stderr.splitlines()
    return line


def test_a_cluster_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    assert "No configuration found" in said_once(run("list", "--kubeconfig", str(tmp_path / "none")))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = config(tmp_path / "config", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "within 0.2 s" in said_once(run("list", "--kubeconfig", path, "--request-timeout", "0.2"))
    assert "Connection refused" in said_once(run("list", "--kubeconfig", path))


@pytest.mark.parametrize("arguments", [[], ["lits"], ["who"], ["list", "-o", "yaml"], ["list", "--request-timeout", "soon"]])
def test_misuse_is_told_with_where_help_is(arguments: Sequence[str]) -> None:
    assert said_once(run(*arguments)).endswith("--help")


def test_nothing_is_imported_that_only_the_daemons_need() -> None:
    every = "from nursery_apps.kubectl import __main__; from nursery_apps.edges import official_client"
    code = f"import sys; {every}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(ended.stdout.split())
    assert "kubernetes" in loaded and "cel_expr_python" in loaded
    assert loaded & DAEMONS_ALONE == set()


async def test_a_doctor_for_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = cluster_of(tmp_path, "1.36")
    cluster.create(NODE, {"metadata": {"name": "node1"}})
    offer(cluster)
    async with cluster.running():
        kubectl = Kubectl(cluster, capsys)
        said = await kubectl("doctor", code=1)
        assert "no pod of the driver's DaemonSet" in said and "docs/installing.md" in said
        body = await kubectl.json("doctor", code=1)
        assert body["kind"] == "Diagnosis"
        assert {"verdict": "ok", "check": "dynamic resource allocation", "about": "", "seen": "resource.k8s.io/v1", "cure": ""} in body[
            "findings"
        ]
