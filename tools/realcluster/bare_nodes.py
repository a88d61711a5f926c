"""Nodes without a kubelet, for work with many: the scheduler and a driver's controller take them for nodes, and what is scheduled to one
stays Pending there.

Their names are node2, node3 and so on, with the label `kubelet: none`. What a driver's node plugin would say of them somebody else must
say. A pod there goes only with `kubectl delete --grace-period=0 --force`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tools.realcluster.versions import Release

_UNSAID: Final = ("bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "machineID", "osImage", "systemUUID")
"""Required, though nobody here asks for them."""


def documents(release: Release, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Ready from the start: a Node may be created with its status, as kubelets do."""
    return [_document(release, f"node{number}") for number in numbers]


def _document(release: Release, name: str) -> dict[str, Any]:
    resources = {"cpu": "64", "memory": "256Gi", "pods": "250"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubelet": "none"},
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "SaidSo", "message": "has no kubelet"}],
            "nodeInfo": {
                "kubeletVersion": f"v{release.version}",
                "operatingSystem": "linux",
                "architecture": "amd64",
                **dict.fromkeys(_UNSAID, ""),
            },
        },
    }
