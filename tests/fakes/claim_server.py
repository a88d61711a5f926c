"""The claims of an API server, as far as prepare reads them: GET by name, LIST by namespace, failures on demand."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from dra.kube.claims import ResourceClaim
from nursery_apps.seams import ApiError, Listing, NotFound, Resource

CLAIMS: Resource[ResourceClaim] = Resource("resource.k8s.io/v1", "resourceclaims", ResourceClaim, namespaced=True)


def claim(
    uid: str, *devices: str, name: str = "", namespace: str = "default", pool: str = "node1", reserved: bool = True, **extra: Any
) -> dict[str, Any]:
    """An allocated claim with one request `gpu`, `gpu-1`… a device. `extra` goes into each result, `config` into the allocation."""
    config = extra.pop("config", [])
    results = [
        {"request": "gpu" if not i else f"gpu-{i}", "driver": "gpu.intel.com", "pool": pool, "device": device, **extra}
        for i, device in enumerate(devices)
    ]
    return {
        "metadata": {"name": name or uid, "namespace": namespace, "uid": uid},
        "spec": {"devices": {"requests": [{"name": result["request"]} for result in results]}},
        "status": {
            "allocation": {"devices": {"results": results, "config": config}},
            "reservedFor": [{"resource": "pods", "name": "pod", "uid": "pod-uid"}] if reserved else [],
        },
    }


class ClaimServer:
    """`claims` is what it stores, by (namespace, name)."""

    def __init__(self, *claims: dict[str, Any]) -> None:
        self.claims: dict[tuple[str, str], ResourceClaim] = {}
        self.failures: list[ApiError] = []
        """Each is raised once, in order, before anything is answered."""
        self.gets = 0
        self.lists = 0
        for document in claims:
            self.put(document)

    def put(self, document: dict[str, Any]) -> None:
        stored = msgspec.json.decode(msgspec.json.encode(document), type=ResourceClaim)
        self.claims[stored.metadata.namespace, stored.metadata.name] = stored

    def delete(self, name: str, namespace: str = "default") -> None:
        del self.claims[namespace, name]

    async def get(self, what: Resource[Any], name: str, *, namespace: str = "") -> Any:
        self.gets += 1
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        try:
            return self.claims[namespace, name]
        except KeyError:
            raise NotFound(404, "NotFound", f'resourceclaims "{name}" not found') from None

    async def list(self, what: Resource[Any], *, namespace: str = "", field_selector: str = "", label_selector: str = "") -> Listing[Any]:
        self.lists += 1
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        return Listing([claim for (where, _), claim in self.claims.items() if where == namespace], "1")
