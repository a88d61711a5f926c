"""What is on the stage of classic DRA: three nodes with a plugin and a fake machine each, and two controllers of which one leads."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tools.demonstration.stage import ROOT, Stage, wait_for

NODES: Final = ("node1", "node2", "node3")
NAMESPACE: Final = "intel-gpu-resource-driver"
GROUP: Final = "gpu.resource.intel.com/v1alpha2"
CLASSIC: Final = "/apis/resource.k8s.io/v1alpha2"
NODE_SETTINGS: Final = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\nprobes: {port: 0}\n"
CONTROLLER_SETTINGS: Final = "apiVersion: gpu.intel.com/v1alpha1\nkind: ControllerConfiguration\nprobes: {port: 0}\n"
MANIFESTS: Final = ("crds", "kustomize/classic")
"""Below manifests: what of them the embedded control plane is to know before the programs start."""


class ClassicStage(Stage):
    nodes = NODES

    def __init__(self, directory: Path, machine: str) -> None:
        super().__init__(directory, machine)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    # --- who plays

    def apply_manifests(self) -> None:
        """Custom resources and classes, from the files that are installed on real clusters."""
        self.api("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for document in documents():
            kind, group = document["kind"], document["apiVersion"]
            if kind == "CustomResourceDefinition":
                self.api("POST", f"/apis/{group}/customresourcedefinitions", document)
            elif kind == "Lease":
                self.api("POST", f"/apis/{group}/namespaces/{NAMESPACE}/leases", document)
            elif kind in ("ResourceClass", "GpuClassParameters"):
                plural = {"ResourceClass": "resourceclasses", "GpuClassParameters": "gpuclassparameters"}[kind]
                self.api("POST", f"/apis/{group}/{plural}", document)

    def start_node(self, node: str) -> None:
        """Its plugin."""
        root = self.directory if node == NODES[0] else self.directory / "nodes" / node
        settings = self.directory / "settings.yaml"
        settings.write_text(NODE_SETTINGS)
        flags = ["--simulate", self.machine, "--node-name", node, "--kubeconfig", self.kubeconfig, "--config", str(settings)]
        flags += ["--kubelet-root", str(root / "kubelet"), "--cdi-root", str(root / "run" / "cdi"), "--pod-namespace", NAMESPACE]
        self._start(node, "gpu-node-plugin", flags)

    def start_controller(self, name: str) -> None:
        settings = self.directory / "controller.yaml"
        settings.write_text(CONTROLLER_SETTINGS)
        flags = ["--kubeconfig", self.kubeconfig, "--pod-namespace", NAMESPACE, "--pod-name", name, "--config", str(settings)]
        self._start(name, "gpu-controller", flags)

    def kill(self, name: str) -> None:
        self._programs[name].kill()
        self._programs[name].wait()

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        self._programs[name].terminate()
        return self._programs[name].wait(timeout=30)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self._programs.values():
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                if process.poll() is None:
                    process.kill()
                    process.wait()
        super().close()

    def _start(self, name: str, program: str, flags: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [str(Path(sys.executable).parent / program), *flags]
            self._programs[name] = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)

    # --- what they write and read

    def leader(self) -> str:
        """Name of the controller that leads, without what tells its lives apart."""
        lease = self.api("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/gpu-controller")
        return str(lease["spec"].get("holderIdentity") or "").rpartition("-")[0] if lease is not None else ""

    def states(self) -> dict[str, Any]:
        """GpuAllocationStates by node."""
        found = self.api("GET", f"/apis/{GROUP}/namespaces/{NAMESPACE}/gpuallocationstates") or {"items": []}
        return {one["metadata"]["name"]: one for one in found["items"]}

    def claim(self, name: str) -> Any:
        return self.api("GET", f"{CLASSIC}/namespaces/default/resourceclaims/{name}")

    def create_claim(self, name: str, *, of_class: str = "intel-gpu", mode: str = "WaitForFirstConsumer", **spec: Any) -> None:
        """With parameters of its own, if any are given."""
        body: dict[str, Any] = {"resourceClassName": of_class, "allocationMode": mode}
        if spec:
            parameters = {"apiVersion": GROUP, "kind": "GpuClaimParameters", "metadata": {"name": name}, "spec": spec}
            self.api("POST", f"/apis/{GROUP}/namespaces/default/gpuclaimparameters", parameters)
            body["parametersRef"] = {"apiGroup": GROUP, "kind": "GpuClaimParameters", "name": name}
        self.api("POST", f"{CLASSIC}/namespaces/default/resourceclaims", {"metadata": {"name": name}, "spec": body})

    def delete_claim(self, name: str) -> None:
        self.api("DELETE", f"{CLASSIC}/namespaces/default/resourceclaims/{name}")

    def create_classic_pod(self, name: str, *claims: str) -> None:
        """A pod whose container uses these claims."""
        spec = {
            "containers": [{"name": "main", "image": "demo", "resources": {"claims": [{"name": claim} for claim in claims]}}],
            "resourceClaims": [{"name": claim, "source": {"resourceClaimName": claim}} for claim in claims],
        }
        self.api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})

    def is_running(self, name: str) -> bool:
        pod = self.pod(name)
        return pod is not None and pod.get("status", {}).get("phase") == "Running"

    def wait_running(self, name: str, seconds: float = 30) -> list[str]:
        """Its device nodes, when it runs."""
        wait_for(f"pod {name} to run", lambda: self.is_running(name) or None, seconds)
        return self.nodes_of(name)


def documents() -> list[dict[str, Any]]:
    """All objects of the classic manifests, custom resource definitions first."""
    files = [path for folder in MANIFESTS for path in sorted((ROOT / "manifests" / folder).glob("*.yaml"))]
    found = [document for path in files for document in yaml.safe_load_all(path.read_text()) if document]
    order = {"CustomResourceDefinition": 0, "GpuClassParameters": 1}
    return sorted((each for each in found if "metadata" in each), key=lambda each: order.get(each["kind"], 2))
