"""A GPU that is lent to a virtual machine, and records of claims that hold it."""

from __future__ import annotations

from typing import Any

from dra import cdi
from dra.devices import DeviceNode, Gpu
from dra.names import Bdf, ClaimUid, PoolName
from dra.records import Grant, Record

UID = ClaimUid("0a1b2c3d-0000-0000-0000-000000000001")
LENT = Gpu(
    bdf=Bdf("0000:18:00.0"),
    device="0xe211",
    driver="vfio-pci",
    driver_version="6.17.8-amd64",
    vfio_nodes=(DeviceNode("/dev/vfio/6", 510, 0, 0o600, 0),),
)


def grant(gpu: Gpu, *requests: str, driver: str = "", uid: ClaimUid = UID) -> Grant:
    name = cdi.qualified(cdi.device_of(uid, gpu.name, driver=driver))
    return Grant(requests=requests, pool=PoolName("node1"), device=gpu.name, bdf=gpu.bdf, driver=driver, cdi_ids=(name,))


def record(*grants: Grant, uid: ClaimUid = UID, name: str = "vm", namespace: str = "default", **fields: Any) -> Record:
    """Of a virtual machine's claim, unless grants are given."""
    return Record(uid=uid, namespace=namespace, name=name, grants=grants or (grant(LENT, "gpu", driver="vfio-pci", uid=uid),), **fields)
