"""GpuAllocationStates and slices of a node with GPUs, as a test wants them stored."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

UID, VF_UID = "0000:03:00.0-0x56c0", "0000:03:00.1-0x56c0"
CARD, VF = "0000-03-00-0-0x56c0", "0000-03-00-1-0x56c0"


def device(uid: str, *, parent: str = "") -> Json:
    kind = {"type": "vf", "parentuid": parent} if parent else {"type": "gpu", "parentuid": ""}
    return {"uid": uid, "memory": 16384, "millicores": 1000, "model": "0x56c0", "maxvfs": 31, "vfindex": 0, "ecc": False, **kind}


def state(node: str, *devices: Json, **tainted: Json) -> Json:
    return {
        "metadata": {"name": node},
        "spec": {"allocatableDevices": {each["uid"]: each for each in devices}, "taintedDevices": tainted},
        "status": "Ready",
    }


def slice_of(node: str, *names: str, card: str = "0000:03:00.0") -> Json:
    devices = [{"name": name, "attributes": {"pfPciAddress": {"string": card}}} for name in names]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return {"metadata": {"name": f"00-{node}"}, "spec": {"driver": "gpu.intel.com", "nodeName": node, "pool": pool, "devices": devices}}
