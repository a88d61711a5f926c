"""The shipped node plugin as a process of its own, on a fake machine, beside a `SimCluster`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

from tools.simcluster.cluster import SimCluster
from tools.simcluster.kubelet import Timing

ROOT = Path(__file__).parents[2]
SETTINGS = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\nprobes: {port: 0}\n"
TIMING = Timing(reconcile=0.1, prepare_again=0.5, unprepare_again=0.2, start_again=0.5, wipe_after=1.0)


class Plugin:
    """One life of it. `log` holds what all lives of the test wrote."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        self.process.terminate()
        with trio.fail_after(20):
            return await self.process.wait()

    def hang_up(self) -> None:
        os.kill(self.process.pid, signal.SIGHUP)


class Node:
    """A cluster with one node on which plugins come and go."""

    def __init__(self, cluster: SimCluster, roots: Sequence[str]) -> None:
        """`roots`: flags that say where the machine is."""
        self.cluster = cluster
        self.roots = roots
        self.directory = Path(cluster.layout.root)
        self.settings = self.directory / "settings.yaml"
        self.settings.write_text(SETTINGS)
        self.log = self.directory / "plugin.log"
        self._started: list[trio.Process] = []

    @property
    def state(self) -> Path:
        return Path(self.cluster.layout.kubelet) / "plugins" / "gpu.intel.com"

    @property
    def cdi_files(self) -> list[str]:
        return sorted(os.listdir(self.cluster.layout.cdi))

    async def start(self, *, pod_uid: str | None = None, registered: bool = True, driver: str = "gpu.intel.com") -> Plugin:
        command = [sys.executable, "-m", "nursery_apps.node", *self.roots]
        command += ["--kubeconfig", self.cluster.kubeconfig_path, "--kubelet-root", self.cluster.layout.kubelet]
        command += ["--cdi-root", self.cluster.layout.cdi, "--node-name", self.cluster.node, "--config", str(self.settings)]
        environ = dict(os.environ) | ({"POD_UID": pod_uid} if pod_uid else {})
        with self.log.open("ab") as log:
            process = await trio.lowlevel.open_process(command, cwd=ROOT, env=environ, stdin=None, stdout=log, stderr=log)
        self._started.append(process)
        plugin = Plugin(process, self.log)
        if registered:
            await self.cluster.wait_plugin(driver)
        return plugin

    async def simulate(self, **request: Any) -> Any:
        import json

        async with await trio.open_unix_socket(self.state / "simulator.sock") as control:
            await control.send_all(json.dumps(request).encode() + b"\n")
            answer = json.loads(await control.receive_some(1 << 20))
        assert "error" not in answer, answer
        return answer["ok"]

    async def close(self) -> None:
        for process in self._started:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()


@contextlib.contextmanager
def _short_directory() -> Iterator[str]:
    """pytest's own are too long for socket paths."""
    with tempfile.TemporaryDirectory(prefix="gpu-", dir="/tmp") as directory:
        yield directory


@contextlib.asynccontextmanager
async def node(
    machine: str = "server-4x-b60", *, roots: Sequence[str] | None = None, kind: type[SimCluster] = SimCluster, **cluster: Any
) -> AsyncIterator[Node]:
    """A running cluster; what was started on its node ends with it. Its machine is simulated in the plugin's process, or at `roots`."""
    if roots is None:
        roots = ("--simulate", str(ROOT / "tools" / "machines" / f"{machine}.json"))
    with _short_directory() as directory:
        cluster.setdefault("timing", TIMING)
        async with kind(directory, **cluster).running() as running:
            here = Node(running, roots)
            try:
                yield here
            except BaseException:
                print(here.log.read_text() if here.log.exists() else "no log")
                raise
            finally:
                await here.close()  # noqa: ASYNC102  it shields itself, with a deadline
