"""An installed driver as far as its removal meets it: settings in a ConfigMap, plugins' pods, and the command as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import trio

from tests.fakes.plugin_process import ROOT
from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import Json

CONFIG_MAP = "node-plugin-settings"


class Ended(msgspec.Struct, frozen=True):
    """How the command ended."""

    code: int
    said: str


class Installed:
    """In one namespace of a cluster."""

    def __init__(self, cluster: SimCluster, namespace: str, settings: Path) -> None:
        """`settings`: the file that the node plugins read; what the ConfigMap says is brought there, as kubelets do."""
        self.cluster, self.namespace, self.settings = cluster, namespace, settings
        if cluster.store.get(kinds.NAMESPACE, "", namespace) is None:
            cluster.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
        text = "# Ours, see wiki.\n" + settings.read_text()
        cluster.create(kinds.CONFIG_MAP, {"metadata": {"name": CONFIG_MAP}, "data": {"settings.yaml": text, "other": "kept"}}, namespace)

    @property
    def text(self) -> str:
        data: dict[str, str] = self.cluster.registry.get(kinds.CONFIG_MAP, CONFIG_MAP, self.namespace)["data"]
        assert data["other"] == "kept"
        return data["settings.yaml"]

    def set_text(self, text: str) -> None:
        def change(body: Json) -> None:
            body["data"]["settings.yaml"] = text

        self.cluster.registry.amend(kinds.CONFIG_MAP, self.cluster.registry.get(kinds.CONFIG_MAP, CONFIG_MAP, self.namespace), change)

    def pod(self, node: str, *, ready: bool = True, component: str = "node-plugin") -> None:
        """A plugin's pod, or made another by what it is now."""
        name = f"{component}-{node}"
        if self.cluster.store.get(kinds.POD, self.namespace, name) is None:
            labels = {"app.kubernetes.io/component": component}
            spec = {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}
            self.cluster.create(kinds.POD, {"metadata": {"name": name, "labels": labels}, "spec": spec}, self.namespace)

        def change(body: Json) -> None:
            body["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}

        self.cluster.registry.amend(kinds.POD, self.cluster.registry.get(kinds.POD, name, self.namespace), change)

    async def project(self) -> None:
        """Bring the ConfigMap's text into the file, until cancelled."""
        while True:
            if self.settings.read_text() != self.text:
                self.settings.write_text(self.text)
            await self.cluster.store.changed()

    async def cleanup(self, *flags: str, timeout: str = "30s") -> Ended:
        """Run the command to its end."""
        command = [sys.executable, "-m", "nursery_apps.controller", "--kubeconfig", self.cluster.kubeconfig_path]
        command += ["cleanup", "--namespace", self.namespace, "--timeout", timeout, *flags]
        done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        return Ended(done.returncode, done.stdout.decode())
