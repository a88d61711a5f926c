"""`python -m tools.simcluster` as a script uses it."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
import urllib3

COMMAND = [sys.executable, "-m", "tools.simcluster"]
ROOT = Path(__file__).parents[3]


async def test_it_says_when_it_is_ready_and_ends_at_a_signal(tmp_path: Path) -> None:
    command = [*COMMAND, "--root", str(tmp_path), "--kubernetes", "1.36", "--node", "worker"]
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, cwd=ROOT))
            said = b""
            while b"\nready " not in said or not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            _, url, kubeconfig = next(line for line in said.decode().splitlines() if line.startswith("ready ")).split()
            assert await trio.Path(kubeconfig).is_file()
            node = await trio.to_thread.run_sync(lambda: urllib3.PoolManager().request("GET", f"{url}/api/v1/nodes/worker").json())
            assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.36.")
            process.terminate()
            assert await process.wait() == 0


async def test_several_nodes_and_what_is_applied(tmp_path: Path) -> None:
    manifest = tmp_path / "class.yaml"
    manifest.write_text("apiVersion: resource.k8s.io/v1alpha2\nkind: ResourceClass\nmetadata: {name: gpu}\ndriverName: gpu.example.com\n")
    command = [*COMMAND, "--root", str(tmp_path / "root"), "--kubernetes", "1.28", "--apply", str(manifest)]
    command += ["--node", "one", "--node", "two"]
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, cwd=ROOT))
            said = b""
            while b"root/nodes/two/run/cdi\n" not in said:
                said += await process.stdout.receive_some()
            url = next(line.split()[1] for line in said.decode().splitlines() if line.startswith("ready "))

            def ask() -> list[list[str]]:
                pool = urllib3.PoolManager()
                paths = ("/api/v1/nodes", "/apis/resource.k8s.io/v1alpha2/resourceclasses")
                return [[each["metadata"]["name"] for each in pool.request("GET", url + path).json()["items"]] for path in paths]

            assert await trio.to_thread.run_sync(ask) == [["one", "two"], ["gpu"]]
            process.terminate()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--kubernetes", "1.20"], "simcluster: no such release: '1.20' (1.28 to 1.37)"),
        (["--gate", "DRADeviceTaints"], "simcluster: --gate DRADeviceTaints: must be DRADeviceTaints=true or DRADeviceTaints=false"),
        (["--port", "taken"], "Address already in use"),
        (["--kubernetes", "1.28", "--apply", "manifests/kustomize/base/deviceclasses.yaml"], 'no matches for kind "DeviceClass"'),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, flags: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [str(taken.getsockname()[1]) if flag == "taken" else flag for flag in flags]
        with trio.fail_after(30):
            ended = await trio.run_process(
                [*COMMAND, "--root", str(tmp_path), *given], capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT
            )
    assert ended.returncode == 1
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1 and said in lines[0]
