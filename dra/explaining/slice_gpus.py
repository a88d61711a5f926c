"""GPUs and their holders from ResourceSlices and ResourceClaims (structured DRA)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dra import quantities
from dra.explaining.cluster import Cluster, Json
from dra.explaining.gpus import Device, Holder, Node, Taint, cards_of, node_of
from dra.names import DRIVER_NAME, bdf_of_device_name

Key = tuple[str, str, str]
"""Driver, pool, device."""


def nodes(cluster: Cluster) -> tuple[Node, ...]:
    """Those with GPUs of ours, by name."""
    held = holders(cluster.claims)
    found: dict[str, list[tuple[str, Device]]] = {}
    for spec in current(cluster.slices):
        if spec["driver"] != DRIVER_NAME:
            continue
        for body in spec.get("devices") or ():
            node = spec.get("nodeName") or body.get("nodeName") or spec["pool"]["name"]
            device, card = _device(spec, body, cluster.taint_rules, held.get((spec["driver"], spec["pool"]["name"], body["name"]), ()))
            found.setdefault(node, []).append((card, device))
    return tuple(node_of(cluster, name, cards_of(found[name])) for name in sorted(found))


def current(slices: Iterable[Json]) -> list[Json]:
    """Specs of each pool's newest generation."""
    newest: dict[tuple[str, str], int] = {}
    specs = [body["spec"] for body in slices]
    for spec in specs:
        key = (spec["driver"], spec["pool"]["name"])
        newest[key] = max(newest.get(key, 0), spec["pool"].get("generation", 0))
    return [spec for spec in specs if spec["pool"].get("generation", 0) == newest[spec["driver"], spec["pool"]["name"]]]


def holders(claims: Iterable[Json]) -> dict[Key, tuple[Holder, ...]]:
    """Who has which device, by the claims' own word."""
    found: dict[Key, tuple[Holder, ...]] = {}
    for claim in claims:
        metadata, status = claim["metadata"], claim.get("status") or {}
        allocation = status.get("allocation")
        if not allocation:
            continue
        pods = tuple(each["name"] for each in status.get("reservedFor") or () if each.get("resource") == "pods")
        asked = {request["name"]: request for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ()}
        for result in (allocation.get("devices") or {}).get("results") or ():
            request = asked.get(result["request"].partition("/")[0]) or {}
            holder = Holder(
                namespace=metadata.get("namespace", ""),
                claim=metadata["name"],
                pods=pods,
                request=result["request"],
                # 1.31 keeps it in the request alone.
                admin=bool(result.get("adminAccess") or (request.get("exactly") or {}).get("adminAccess")),
                share=result.get("consumedCapacity") or {},
                since=allocation.get("allocationTimestamp"),
            )
            key = (result["driver"], result["pool"], result["device"])
            found[key] = (*found.get(key, ()), holder)
    return found


def taints(driver: str, pool: str, device: Json, rules: Iterable[Json]) -> tuple[Taint, ...]:
    """The driver's and those of DeviceTaintRules."""
    found = [_taint(taint, "the driver") for taint in device.get("taints") or ()]
    for rule in rules:
        chosen = rule["spec"].get("deviceSelector") or {}
        if all(chosen.get(key) in (None, "", here) for key, here in (("driver", driver), ("pool", pool), ("device", device["name"]))):
            found.append(_taint(rule["spec"]["taint"], f"DeviceTaintRule {rule['metadata']['name']}"))
    return tuple(found)


def attribute(device: Json, name: str, driver: str = DRIVER_NAME) -> Any:
    """An attribute's value, whatever its type; None if there is none."""
    attributes = device.get("attributes") or {}
    typed = attributes.get(name) or attributes.get(f"{driver}/{name}") or {}
    return next(iter(typed.values()), None)


def _taint(body: Json, by: str) -> Taint:
    return Taint(key=body["key"], effect=body["effect"], value=body.get("value") or "", by=by)


def _device(spec: Json, body: Json, rules: Iterable[Json], held: tuple[Holder, ...]) -> tuple[Device, str]:
    """And the address of its card."""
    pci = attribute(body, "pciAddress") or bdf_of_device_name(body["name"]) or body["name"]
    device = Device(
        name=body["name"],
        pci=pci,
        kind=attribute(body, "type") or "gpu",
        driver=attribute(body, "driver") or "",
        model=attribute(body, "model") or "",
        memory_bytes=_capacity(body, "memory"),
        millicores=_capacity(body, "millicores"),
        profile=attribute(body, "profile") or "",
        vf_index=int(attribute(body, "vfIndex") or 0),
        shared=bool(body.get("allowMultipleAllocations")),
        health=attribute(body, "health") or "Unknown",
        taints=taints(spec["driver"], spec["pool"]["name"], body, rules),
        holders=held,
    )
    return device, attribute(body, "pfPciAddress") or pci


def _capacity(body: Json, name: str) -> int:
    capacity = body.get("capacity") or {}
    value = capacity.get(name) or capacity.get(f"{DRIVER_NAME}/{name}")
    try:
        return quantities.parse(str(value["value"])) if value else 0
    except ValueError:
        return 0
