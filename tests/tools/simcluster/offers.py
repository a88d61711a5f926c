"""What a driver offers and what is asked of it, in a few words: for tests of the allocator alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from dra.structured import pools
from dra.structured.allocator import Allocator
from tools.simcluster import releases
from tools.simcluster.kinds import Json

DRIVER = "gpu.intel.com"
NODE = "node1"
CLASSES = {"gpu": {"metadata": {"name": "gpu"}, "spec": {}}}


def slice_of(name: str, *, count: int = 1, generation: int = 1, **spec: Any) -> Json:
    pool = {"name": NODE, "generation": generation, "resourceSliceCount": count}
    return {"metadata": {"name": name}, "spec": {"driver": DRIVER, "nodeName": NODE, "pool": pool, **spec}}


def consumes(counter_set: str, **counters: str) -> Json:
    return {"counterSet": counter_set, "counters": {name: {"value": value} for name, value in counters.items()}}


def typed(name: str, kind: str, **more: Any) -> Json:
    return {"name": name, "attributes": {"type": {"string": kind}}, **more}


def counter_sets(cards: int, vfs: int) -> list[Json]:
    total = {"vfs": {"value": str(vfs)}, "memory": {"value": f"{vfs * 4}Gi"}}
    return [{"name": f"card-{card}", "counters": total} for card in range(cards)]


def cards(kubernetes: str, *, count: int = 1, vfs: int = 2, **pf: Any) -> list[Json]:
    """Slices of cards with VFs of 4 GiB each, beside each other or in one, as the release wants them."""
    devices = []
    for card in range(count):
        whole = consumes(f"card-{card}", vfs=str(vfs), memory=f"{vfs * 4}Gi")
        part = consumes(f"card-{card}", vfs="1", memory="4Gi")
        devices.append(typed(f"pf-{card}", "gpu", consumesCounters=[whole], **pf))
        devices += [typed(f"vf-{card}-{index}", "vf", consumesCounters=[part]) for index in range(vfs)]
    if int(kubernetes.partition(".")[2]) <= 34:
        return [slice_of("all", devices=devices, sharedCounters=counter_sets(count, vfs))]
    return [slice_of("a-counters", count=2, sharedCounters=counter_sets(count, vfs)), slice_of("b-devices", count=2, devices=devices)]


def only(kind: str) -> Json:
    return {"selectors": [{"cel": {"expression": f'device.attributes["{DRIVER}"].type == "{kind}"'}}]}


def exactly(name: str = "gpu", **more: Any) -> Json:
    return {"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, **more}}


def asks(name: str = "gpu", **capacity: str) -> Json:
    return exactly(name, capacity={"requests": capacity})


def everything(name: str = "gpu", **more: Any) -> Json:
    return {"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "All", **more}}


def first_of(*alternatives: Json, name: str = "gpu") -> Json:
    return {"name": name, "firstAvailable": [{**each["exactly"], "name": each["name"]} for each in alternatives]}


def claim(*requests: Json, **devices: Any) -> Json:
    return {"metadata": {"name": "c", "uid": "u"}, "spec": {"devices": {"requests": list(requests), **devices}}}


def holding(*devices: str, **more: Any) -> Json:
    results = [{"request": "gpu", "driver": DRIVER, "pool": NODE, "device": name, **more} for name in devices]
    return allocated({"devices": {"results": results}})


def allocated(allocation: Json) -> Json:
    return {"metadata": {"name": "other"}, "status": {"allocation": allocation}}


def allocations(slices: list[Json], claims: Sequence[Json], kubernetes: str, held: Sequence[Json] = (), **gates: bool) -> list[Json]:
    release = releases.release(kubernetes, gates=gates)
    offered = pools.gather(slices, NODE, [], release)
    return Allocator(offered, CLASSES, held, release, share_id=lambda: str(uuid.uuid4())).allocate(claims)


def allocate(slices: list[Json], wanted: Json, kubernetes: str, held: Sequence[Json] = (), **gates: bool) -> list[Json]:
    """The results for one claim."""
    [allocation] = allocations(slices, [wanted], kubernetes, held, **gates)
    results: list[Json] = allocation["devices"]["results"]
    return results


def names(results: list[Json]) -> list[str]:
    return [result["device"] for result in results]
