"""What of a pod, beside its claims, keeps it from a node: the plain ones of the scheduler's rules.

Not looked at: what other pods take of CPU and memory, affinity between pods, topology spread, volumes, ports.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dra import quantities
from dra.classic import node_selector
from dra.explaining.cluster import Json
from dra.kube.classic import NodeSelector

_CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def excluded(pod: Json | None, node: Json) -> str | None:
    """Why the node is not for the pod; None if nothing is found. Without a pod only what keeps all pods away counts."""
    spec: Json = (pod or {}).get("spec") or {}
    name, node_spec = node["metadata"]["name"], node.get("spec") or {}
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    if spec.get("nodeName"):
        return None if spec["nodeName"] == name else f"the pod is bound to node {spec['nodeName']}"
    tolerations = spec.get("tolerations") or []
    if node_spec.get("unschedulable") and not _tolerated(_CORDON, tolerations):
        return "the node is cordoned"
    for key, value in sorted((spec.get("nodeSelector") or {}).items()):
        if labels.get(key) != value:
            return f"the pod's nodeSelector wants {key}={value}, the node has {_label(labels, key)}"
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not node_selector.matches(msgspec.convert(required, NodeSelector), name, labels):
        return "the pod's required node affinity does not match the node"
    for taint in node_spec.get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"the node has the taint {taint['key']}{value}:{taint['effect']}, which the pod does not tolerate"
    return _too_large(spec, (node.get("status") or {}).get("allocatable") or {})


def _label(labels: dict[str, str], key: str) -> str:
    return f"{key}={labels[key]}" if key in labels else "no such label"


def _tolerated(taint: Json, tolerations: list[Json]) -> bool:
    for each in tolerations:
        if each.get("effect") not in (None, "", taint["effect"]) or each.get("key") not in (None, "", taint["key"]):
            continue
        if each.get("operator") == "Exists" or (each.get("key") and (each.get("value") or "") == (taint.get("value") or "")):
            return True
    return False


def _too_large(spec: Json, allocatable: Json) -> str | None:
    """Whether the pod alone asks for more than the node has."""
    for resource in sorted(allocatable):
        asked = sum(
            _nanos(((container.get("resources") or {}).get("requests") or {}).get(resource, "0"))
            for container in spec.get("containers") or ()
        )
        if asked > _nanos(allocatable[resource]):
            return f"the pod asks for more {resource} than the node has ({allocatable[resource]})"
    return None


def _nanos(text: Any) -> int:
    try:
        return quantities.nanos(str(text))
    except ValueError:
        return 0
