"""The shipped controller and node plugins as processes of their own, on fake machines, beside a `ClassicCluster`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from dra.classic import handle
from dra.classic.handle import Handle
from dra.classic.names import CLASSIC_DRIVER_NAME, GROUP_VERSION
from tests.fakes.plugin_process import ROOT, SETTINGS, TIMING
from tools.simcluster import kinds
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kinds import CLAIM, Json

NAMESPACE = "intel-gpu-resource-driver"
CONTROLLER_SETTINGS = "apiVersion: gpu.intel.com/v1alpha1\nkind: ControllerConfiguration\nprobes: {port: 0}\n"
CLASSES = {"intel-gpu": {}, "intel-gpu-shared": {"shared": True}, "intel-gpu-monitor": {"monitor": True}}


class Programs:
    """What runs on a cluster, by name: nodes' names for their plugins, any others for controllers."""

    def __init__(self, cluster: ClassicCluster, machine: str) -> None:
        self.cluster = cluster
        self._machine = str(ROOT / "tools" / "machines" / f"{machine}.json")
        self._directory = Path(cluster.layout.root)
        self.settings = self._directory / "settings.yaml"
        self.settings.write_text(SETTINGS)
        self.controller_settings = self._directory / "controller.yaml"
        self.controller_settings.write_text(CONTROLLER_SETTINGS)
        self._running: dict[str, trio.Process] = {}

    # --- programs

    async def start_plugin(self, node: str, *, registered: bool = True) -> None:
        layout = self.cluster.layout_of(node)
        flags = ["--simulate", self._machine, "--node-name", node, "--kubelet-root", layout.kubelet, "--cdi-root", layout.cdi]
        await self._start(node, "nursery_apps.node", [*flags, "--config", str(self.settings)])
        if registered:
            await self.cluster.wait_plugin(CLASSIC_DRIVER_NAME, node=node, deadline=20)

    async def start_controller(self, name: str) -> None:
        await self._start(name, "nursery_apps.controller", ["--pod-name", name, "--config", str(self.controller_settings)])

    async def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    async def terminate(self, name: str) -> int:
        process = self._running.pop(name)
        process.terminate()
        with trio.fail_after(20):
            return await process.wait()

    def freeze(self, name: str) -> None:
        os.kill(self._running[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self._running[name].pid, signal.SIGCONT)

    def log(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text()

    async def exit_code(self, name: str) -> int:
        """When it ends by itself."""
        with trio.fail_after(30):
            return await self._running.pop(name).wait()

    async def _start(self, name: str, module: str, flags: Sequence[str]) -> None:
        command = [sys.executable, "-m", module, *flags, "--kubeconfig", self.cluster.kubeconfig_path, "--pod-namespace", NAMESPACE]
        with (self._directory / f"{name}.log").open("ab") as log:
            process = await trio.lowlevel.open_process(command, cwd=ROOT, stdin=None, stdout=log, stderr=log)
        self._running[name] = process

    def print_logs(self) -> None:
        for path in sorted(self._directory.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()}")
        for kind in (kinds.SCHEDULING, CLAIM, kinds.POD):
            for body in self.cluster.store.all(kind):
                print(f"--- {kind.kind} {body['metadata']['name']}: {body.get('spec')} {body.get('status')}")

    async def close(self) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()

    # --- what users write

    def claim(
        self, name: str, *, of_class: str = "intel-gpu", mode: str = "WaitForFirstConsumer", template: bool = False, **spec: Any
    ) -> None:
        ref = None
        if spec:
            kind = self.cluster.registry.kind(GROUP_VERSION, "GpuClaimParameters")
            self.cluster.create(kind, {"metadata": {"name": name}, "spec": spec})
            ref = {"apiGroup": GROUP_VERSION, "kind": "GpuClaimParameters", "name": name}
        self.cluster.create_resource_claim(name, of_class, parameters=ref, mode=mode, template=template)

    def pod(self, name: str, *claims: str) -> None:
        self.cluster.create_pod(name, claims={claim: claim for claim in claims})

    def handle(self, name: str) -> Handle | None:
        allocation = (self.cluster.claim(name).get("status") or {}).get("allocation")
        return handle.parse(allocation["resourceHandles"][0]["data"]) if allocation else None

    def nodes_in(self, pod: str) -> list[str]:
        """Device nodes of a running pod, links left out."""
        injected = self.cluster.injected(pod).values()
        return sorted(node["path"] for container in injected for node in container.device_nodes if "by-path" not in node["path"])

    def state(self, node: str) -> Json:
        kind = self.cluster.registry.kind(GROUP_VERSION, "GpuAllocationState")
        return self.cluster.registry.get(kind, node, NAMESPACE)

    async def wait_ready(self, *nodes: str) -> None:
        kind = self.cluster.registry.kind(GROUP_VERSION, "GpuAllocationState")

        def ready(states: list[Json]) -> bool:
            return {state["metadata"]["name"] for state in states if state.get("status") == "Ready"} >= set(nodes)

        await self.cluster.wait(kind, ready, f"{', '.join(nodes)} Ready", deadline=20)

    async def wait_no_claims(self) -> None:
        await self.cluster.wait(CLAIM, lambda claims: not claims, "no claim left", deadline=30)


@contextlib.asynccontextmanager
async def programs(
    kubernetes: str = "1.28", *, nodes: Sequence[str] = ("node1", "node2"), machine: str = "server-8x-flex170"
) -> AsyncIterator[Programs]:
    """A running cluster with the driver's custom resources and classes; what was started on it ends with it."""
    with tempfile.TemporaryDirectory(prefix="gc-", dir="/tmp") as directory:  # pytest's own are too long for socket paths
        cluster = ClassicCluster(directory, kubernetes=kubernetes, node=nodes[0], more_nodes=nodes[1:], timing=TIMING)
        for path in sorted((ROOT / "manifests" / "crds").glob("gpu*.yaml")):
            cluster.apply_file(str(path))
        cluster.create(kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}})
        cluster.create(kinds.LEASE, {"metadata": {"name": "gpu-controller"}}, NAMESPACE)
        for name, spec in CLASSES.items():
            kind = cluster.registry.kind(GROUP_VERSION, "GpuClassParameters")
            cluster.create(kind, {"metadata": {"name": name}, "spec": {"shared": False, **spec}})
            parameters = {"apiGroup": GROUP_VERSION, "kind": "GpuClassParameters", "name": name}
            cluster.create_resource_class(name, CLASSIC_DRIVER_NAME, parameters=parameters)
        async with cluster.running():
            made = Programs(cluster, machine)
            try:
                yield made
            except BaseException:
                made.print_logs()
                raise
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
                    await made.close()
