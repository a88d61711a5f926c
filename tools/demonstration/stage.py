"""What is on the stage: the control plane, the plugin and the fake machine, each a process or a socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
NODE = "node1"
DRIVER = "gpu.intel.com"
MOUNTED = "SIM_SOCKET"
"""Set by `tools/lab run`: the control socket of the machine that is mounted there."""
T = TypeVar("T")


Staged = TypeVar("Staged", bound="Stage")


class NotAsExpected(Exception):
    """The story did not happen."""


class Stage:
    """Everything below one directory; `close` ends the processes that were started here and nothing else."""

    nodes: tuple[str, ...] = (NODE,)

    def __init__(self, directory: Path, machine: str) -> None:
        self.directory = directory
        self.machine = machine
        self.kubelet_root = directory / "kubelet"
        self.cdi_root = directory / "run" / "cdi"
        self.settings = directory / "settings.yaml"
        self.plugin_log = directory / "plugin.log"
        self.url = ""
        self.kubeconfig = ""
        self._control_plane: subprocess.Popen[bytes] | None = None
        self._plugin: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        return self.kubelet_root / "plugins" / DRIVER

    def start_control_plane(self, kubernetes: str) -> None:
        command = [sys.executable, "-m", "tools.simcluster", "--root", str(self.directory), "--kubernetes", kubernetes]
        for node in self.nodes:
            command += ["--node", node]
        command += ["--retry-seconds", "3"]  # the real kubelet takes some 80 s, which nobody wants to watch
        log = self.directory / "control-plane.log"
        with log.open("wb") as out:
            self._control_plane = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        self.kubeconfig = str(self.directory / "kubeconfig")
        line = wait_for("the control plane", lambda: next((line for line in log.read_text().splitlines() if " at http" in line), None))
        self.url = line.rpartition(" at ")[2]
        wait_for("the Node objects", lambda: all(self.api("GET", f"/api/v1/nodes/{node}") for node in self.nodes) or None)

    def start_plugin(self) -> None:
        # In `tools/lab run` the machine is mounted, and the plugin finds it by the environment.
        simulated = [] if MOUNTED in os.environ else ["--simulate", self.machine]
        command = [str(Path(sys.executable).parent / "gpu-node-plugin"), *simulated, "--node-name", NODE]
        command += ["--kubeconfig", self.kubeconfig, "--kubelet-root", str(self.kubelet_root), "--cdi-root", str(self.cdi_root)]
        command += ["--config", str(self.settings)]
        with self.plugin_log.open("ab") as log:
            self._plugin = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)

    def registrations(self) -> int:
        """How often the kubelet has accepted the plugin."""
        return self.plugin_log.read_text().count("registered with the kubelet")

    def kill_plugin(self) -> None:
        assert self._plugin is not None
        self._plugin.kill()
        self._plugin.wait()

    def hang_up(self) -> None:
        assert self._plugin is not None
        self._plugin.send_signal(signal.SIGHUP)

    def stop_plugin(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._plugin is not None
        self._plugin.terminate()
        return self._plugin.wait(timeout=30)

    def close(self) -> None:
        for process in (self._plugin, self._control_plane):
            if process is not None and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One request to the API server; 404 is None."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise NotAsExpected(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None

    def simulate(self, op: str, **fields: Any) -> Any:
        """One line to the fake machine's control socket."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(os.environ.get(MOUNTED) or str(self.state_dir / "simulator.sock"))
            control.sendall(json.dumps({"op": op} | fields).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        if "error" in answer:
            raise NotAsExpected(f"simulator, {op}: {answer['error']}")
        return answer["ok"]

    def devices(self) -> dict[str, dict[str, Any]]:
        """What is published, by device name."""
        slices = self.api("GET", "/apis/resource.k8s.io/v1/resourceslices")["items"]
        return {
            device["name"]: device for item in slices if item["spec"]["driver"] == DRIVER for device in item["spec"].get("devices") or []
        }

    def create_pod(self, name: str, cel: str, *, device_class: str = DRIVER) -> None:
        request = {"name": "gpu", "exactly": {"deviceClassName": device_class, "selectors": [{"cel": {"expression": cel}}]}}
        template = {"metadata": {"name": name}, "spec": {"spec": {"devices": {"requests": [request]}}}}
        self.api("POST", "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates", template)
        spec = {
            "containers": [{"name": "main", "image": "demo", "resources": {"claims": [{"name": "gpu"}]}}],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
        }
        self.api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})

    def pod(self, name: str) -> Any:
        return self.api("GET", f"/api/v1/namespaces/default/pods/{name}")

    def delete_pod(self, name: str) -> None:
        self.api("DELETE", f"/api/v1/namespaces/default/pods/{name}")

    def nodes_of(self, name: str) -> list[str]:
        """Device nodes that the pod's container was given."""
        injected = json.loads(self.pod(name)["metadata"]["annotations"]["simcluster/injected"])
        paths = {node["path"] for container in injected.values() for node in container["device_nodes"]}
        return sorted(path for path in paths if "by-path" not in path)

    def slow_down_claims(self, seconds: float) -> None:
        """The plugin's next read of a claim takes so long."""
        fault = {"verbs": ["get"], "resources": ["resourceclaims"], "user_agent": "intel-gpu-dra", "times": 1, "delay_seconds": seconds}
        self.api("POST", "/simcluster/faults", fault)

    def is_slowed_down(self) -> bool:
        """Whether that read is still to come."""
        return bool(self.api("GET", "/simcluster/faults")["faults"])


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 20) -> T:
    """Look until there is something to see."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (seen := look()) is not None and seen is not False:
            return seen
        time.sleep(0.02)  # processes of their own: there is no event to wait for
    raise NotAsExpected(f"waited {seconds:.0f} s in vain: {what}")


@contextlib.contextmanager
def on_stage(kind: type[Staged], directory: Path, machine: str) -> Iterator[Staged]:
    stage = kind(directory, machine)
    try:
        yield stage
    finally:
        stage.close()


def short_directory() -> Path:
    """Below /tmp: socket paths may have 107 bytes only."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="gpu-demo-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
