"""From a stored GpuAllocationState to what the node wants it to say of itself, by changes that touch nothing else.

The object is one of several writers (taints are the alert receiver's), so nothing is ever replaced as a whole: a JSON merge patch names
each key that differs, and null for what is to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dra.classic.inventory import NOT_READY, AllocatableGpu
from dra.classic.names import GROUP_VERSION, DeviceUid
from dra.kube.meta import OwnerReference

KIND: Final = "GpuAllocationState"
CONTENT_TYPE: Final = "application/merge-patch+json"

Json = dict[str, Any]


def create(name: str, namespace: str, owner: OwnerReference, devices: Mapping[DeviceUid, AllocatableGpu], status: str) -> Json:
    """The object of a node that has none."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [_owner(owner)]},
        "spec": {"allocatableDevices": {uid: msgspec.to_builtins(device) for uid, device in devices.items()}},
        "status": status,
    }


def patch(stored: Json, owner: OwnerReference, devices: Mapping[DeviceUid, AllocatableGpu], status: str) -> Json | None:
    """What to send; None if all is as wanted.

    Args:
        stored: the object as it is. The claims that the original driver had prepared are ours by now: it is not to speak of them any more.
    """
    made: Json = {}
    if changes := _devices(_of(_of(stored, "spec"), "allocatableDevices"), devices):
        made["spec"] = {"allocatableDevices": changes}
    if _of(_of(stored, "spec"), "preparedClaims"):
        made.setdefault("spec", {})["preparedClaims"] = None
    if stored.get("status") != status:
        made["status"] = status
    references = stored["metadata"].get("ownerReferences") or []
    if _owner(owner) not in references:
        # A Node that was made anew has another UID: the reference to the one before is dead, and would take the object with it.
        others = [one for one in references if one.get("kind") != owner.kind]
        made["metadata"] = {"ownerReferences": [*others, _owner(owner)]}
    return made or None


def not_ready() -> Json:
    """What an orderly stop leaves."""
    return {"status": NOT_READY}


def _devices(stored: Json, wanted: Mapping[DeviceUid, AllocatableGpu]) -> Json:
    changes: Json = {uid: None for uid in stored if uid not in wanted}
    for uid, device in wanted.items():
        body, now = msgspec.to_builtins(device), stored.get(uid)
        if not isinstance(now, dict):
            changes[uid] = body
        elif differs := {key: value for key, value in body.items() if key not in now or now[key] != value}:
            changes[uid] = differs
    return changes


def _of(body: Json, key: str) -> Json:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _owner(owner: OwnerReference) -> Json:
    made: Json = msgspec.to_builtins(owner)
    return {key: value for key, value in made.items() if value is not None}
