"""One cluster's directory: where everything of it lies, so that removing it removes the cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any, Final

DEFAULT: Final = pathlib.Path(os.environ.get("CLUSTER_DIR", "/var/lib/intel-gpu-dra-cluster"))
NODE_NAME: Final = "node1"
NODE_IP: Final = "10.77.0.1"
"""Of the node's loopback device: the kubelet refuses an address of 127.0.0.0/8. Nobody outside the network namespace has a route."""
SERVICE_IP: Final = "10.96.0.1"
SERVICE_RANGE: Final = "10.96.0.0/16"
POD_RANGE: Final = "10.244.0.0/24"
API_PORT: Final = 6443

BOUND: Final = {
    "kubelet": "/var/lib/kubelet",
    "containerd": "/var/lib/containerd",
    "pod-logs": "/var/log/pods",
    "container-logs": "/var/log/containers",
}
"""Directory of the site -> where the node sees it. The paths are the usual ones, so that manifests need no change."""


@dataclasses.dataclass(frozen=True)
class Site:
    root: pathlib.Path = DEFAULT

    @property
    def pki(self) -> pathlib.Path:
        return self.root / "pki"

    @property
    def control_socket(self) -> pathlib.Path:
        return self.root / "node.sock"

    @property
    def cgroup(self) -> str:
        """Name of the cgroup that the kubelet makes its own in: no other cluster has the same."""
        return f"gpu-dra-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    def log(self, name: str) -> pathlib.Path:
        return self.root / "log" / f"{name}.log"

    def kubeconfig(self, user: str = "admin") -> pathlib.Path:
        return self.pki / f"{user}.kubeconfig"

    def make(self) -> None:
        for name in ("log", "etcd", "cni", "ipam", "config", *BOUND):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    # --- what must be known to take the cluster down, or up again -----------------------------------------------------------------------

    @property
    def _record(self) -> pathlib.Path:
        return self.root / "cluster.json"

    def remember(self, **facts: Any) -> None:
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(facts, indent=2))
        new.replace(self._record)

    def facts(self) -> dict[str, Any]:
        """What `up` was told and found, empty if there is no cluster.

        `version`, `containerd`: the release; `nodes`: how many were asked for; `sysctls`: values from before; `mount_points`: directories
        made for it.
        """
        try:
            return json.loads(self._record.read_bytes())
        except FileNotFoundError:
            return {}
