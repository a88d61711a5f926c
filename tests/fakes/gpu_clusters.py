"""Clusters as `kubectl intel-gpu` reads them, in a few words."""

from __future__ import annotations

from typing import Any

from dra.explaining.cluster import Cluster

Json = dict[str, Any]
DRIVER = "gpu.intel.com"
AT = "2026-11-26T12:00:00Z"
OURS = 'device.driver == "gpu.intel.com"'


def is_type(kind: str) -> str:
    return f'device.attributes["{DRIVER}"].type == "{kind}"'


def selectors(*expressions: str) -> list[Json]:
    return [{"cel": {"expression": each}} for each in expressions]


def node(name: str = "n1", *, labels: dict[str, str] | None = None, ready: str = "True", **spec: Any) -> Json:
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"cpu": "8"}}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": status}


def device(number: int, kind: str = "gpu", *, card: int | None = None, memory: str = "16Gi", **more: Any) -> Json:
    pci = f"0000:0{card if card is not None else number}:00.{number if kind == 'vf' else 0}"
    texts = {"type": kind, "pciAddress": pci, "pfPciAddress": f"0000:0{card if card is not None else number}:00.0", "model": "Flex 170"}
    attributes: Json = {name: {"string": text} for name, text in texts.items()}
    attributes["vfIndex"] = {"int": number if kind == "vf" else 0}
    name = pci.replace(":", "-").replace(".", "-") + "-0x56c0"
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": memory}}, **more}


def slice_of(*devices: Json, node: str = "n1", name: str = "", count: int = 1, **spec: Any) -> Json:
    pool = {"name": node, "generation": 1, "resourceSliceCount": count}
    body = {"driver": DRIVER, "nodeName": node, "pool": pool, **({"devices": list(devices)} if devices else {}), **spec}
    return {"metadata": {"name": name or f"{node}-devices"}, "spec": body}


def gpu_class(name: str = "gpu.intel.com", *expressions: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"selectors": selectors(*(expressions or (OURS,)))}}


def claim(name: str, *requests: Json, namespace: str = "default", status: Json | None = None, **devices: Any) -> Json:
    asked = list(requests) or [exactly()]
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}
    return {"metadata": metadata, "spec": {"devices": {"requests": asked, **devices}}, "status": status or {}}


def exactly(name: str = "gpu", of_class: str = "gpu.intel.com", **more: Any) -> Json:
    return {"name": name, "exactly": {"deviceClassName": of_class, **more}}


def holding(name: str, *devices: str, pods: tuple[str, ...] = (), namespace: str = "default", node: str = "n1", **more: Any) -> Json:
    """A claim that has devices."""
    results = [{"request": "gpu", "driver": DRIVER, "pool": node, "device": each, **more} for each in devices]
    reserved = [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"} for pod in pods]
    return claim(name, namespace=namespace, status={"allocation": {"devices": {"results": results}}, "reservedFor": reserved})


def pod(name: str, *claims: str, template: str = "", phase: str = "Pending", **spec: Any) -> Json:
    entries: list[Json] = [{"name": each, "resourceClaimName": each} for each in claims]
    if template:
        entries.append({"name": "made", "resourceClaimTemplateName": template})
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": {"resourceClaims": entries, **spec}, "status": {"phase": phase}}


def warning(about: Json, reason: str, message: str) -> Json:
    metadata = about["metadata"]
    return {
        "metadata": {"name": f"{metadata['name']}.1", "namespace": "default"},
        "involvedObject": {"name": metadata["name"], "uid": metadata["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": AT,
    }


def said_of_node(node: str, reason: str, message: str, at: str = AT) -> Json:
    """An Event of a node plugin, which knows its Node by the name."""
    about = {"kind": "Node", "name": node, "uid": node}
    return {"metadata": {"name": f"{node}.{reason}"}, "involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at}


def cluster(version: str = "v1.36.3", **objects: Any) -> Cluster:
    return Cluster(version=version, api="v1", at=AT, **{name: tuple(bodies) for name, bodies in objects.items()})


def own_pod(
    node: str = "n1", *, component: str = "node-plugin", ready: bool = True, restarts: int = 0, image: str = "intel-gpu-dra:1"
) -> Json:
    """One of the driver's."""
    labels = {"app.kubernetes.io/name": "intel-gpu-dra", "app.kubernetes.io/component": component}
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"restartCount": restarts}],
    }
    metadata = {"name": f"{component}-{node}", "namespace": "intel-gpu-dra", "uid": f"uid-{component}-{node}", "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": node, "containers": [{"image": image}]}, "status": status}
