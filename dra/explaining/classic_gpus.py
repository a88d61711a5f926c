"""GPUs and their holders from GpuAllocationStates and the handles of claims (classic DRA, Kubernetes 1.28 to 1.30)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from dra import models
from dra.classic import claim_state, handle, originals, vf_planning
from dra.classic.handle import Handle, Part, profiles_of
from dra.classic.inventory import READY, AllocatableGpu, DeviceType, GpuAllocationState
from dra.classic.names import CLASSIC_DRIVER_NAME, device_of, parse_uid
from dra.errors import ClaimRefused
from dra.explaining.cluster import Cluster, Json
from dra.explaining.gpus import Device, Holder, Node, Taint, cards_of, node_of
from dra.kube.classic import ResourceClaim
from dra.names import ClaimUid, NodeName

Place = tuple[str, int]
"""Uid of a card or of a VF, and number of a VF of that card; 0 for itself."""
_MIB: Final = 1 << 20
_WHOLE: Final = 1000


def nodes(cluster: Cluster) -> tuple[Node, ...]:
    """Those with a GpuAllocationState, by name."""
    by_name = states(cluster)
    held = [(holding, _holder(claim, holding)) for claim, holding in handles(cluster)]
    return tuple(_node(cluster, by_name[name], [(which, who) for which, who in held if which.node == name]) for name in sorted(by_name))


def states(cluster: Cluster) -> dict[str, GpuAllocationState]:
    """By node; what cannot be understood counts as not there."""
    found = {}
    for body in cluster.states:
        try:
            found[body["metadata"]["name"]] = msgspec.convert(body, GpuAllocationState)
        except msgspec.ValidationError:
            found[body["metadata"]["name"]] = GpuAllocationState.empty(body["metadata"]["name"])
    return found


def handles(cluster: Cluster) -> list[tuple[ResourceClaim, Handle]]:
    """Of all claims that this driver allocated."""
    found = []
    known = states(cluster)
    for body in cluster.claims:
        claim = msgspec.convert(body, ResourceClaim)
        if not claim_state.is_allocated(claim):
            continue
        try:
            data = claim_state.handle_data(claim)
            node = NodeName(claim.node)
            holding = handle.parse(data) if data else originals.handle_of(known.get(node), ClaimUid(claim.metadata.uid), node)
        except ClaimRefused:
            continue  # nobody can tell what it holds; `why` says so of the claim
        found.append((claim, holding if holding.node else msgspec.structs.replace(holding, node=claim.node)))
    return found


def _holder(claim: ResourceClaim, holding: Handle) -> Holder:
    return Holder(
        namespace=claim.metadata.namespace,
        claim=claim.metadata.name,
        pods=tuple(consumer.name for consumer in claim.status.reserved_for or () if consumer.resource == "pods"),
        admin=holding.monitor,
    )


def _node(cluster: Cluster, state: GpuAllocationState, held: list[tuple[Handle, Holder]]) -> Node:
    holders: dict[Place, tuple[Holder, ...]] = {}
    layouts: dict[str, tuple[str, ...]] = {}
    for holding, holder in held:
        for part in holding.parts:
            mine = holder
            if holding.shared and not part.vfs and not part.parent:
                amounts = {"memory": f"{part.memory}Mi", "millicores": str(part.millicores)}
                mine = msgspec.structs.replace(holder, share={name: text for name, text in amounts.items() if text not in ("0Mi", "0")})
            for place in _places(part):
                holders[place] = (*holders.get(place, ()), mine)
            if part.layout:
                layouts[part.uid] = tuple(profiles_of(part.layout))
    monitors = tuple(holder for holding, holder in held if holding.monitor)
    found = list(_devices(state, holders, layouts, monitors))
    problem = "" if state.status == READY else f"its GpuAllocationState is {state.status or 'without status'}"
    return node_of(cluster, state.metadata.name, cards_of(found), problem)


def _places(part: Part) -> list[Place]:
    """A VF is where its card and number are, whoever made it."""
    if part.parent:
        return [(part.parent, part.index)]
    return [(part.uid, number) for number in part.vfs] or [(part.uid, 0)]


def _devices(
    state: GpuAllocationState,
    holders: Mapping[Place, tuple[Holder, ...]],
    layouts: Mapping[str, tuple[str, ...]],
    monitors: tuple[Holder, ...],
) -> Iterable[tuple[str, Device]]:
    """(address of the card, device); VFs that claims were given and nobody has made yet are there too."""
    made: set[Place] = set()
    for uid, gpu in state.devices.items():
        is_vf = gpu.type is DeviceType.VF
        card = gpu.parentuid if is_vf and gpu.parentuid else uid
        place = (card, gpu.vfindex + 1) if is_vf else (uid, 0)
        made.add(place)
        yield _pci(card), _device(uid, gpu, place[1], _taints(state, uid, card), (*holders.get(place, ()), *monitors))
    for card, profiles in layouts.items():
        gpu_of_card = state.devices.get(card)
        if gpu_of_card is None:
            continue
        sizes = vf_planning.sizes(vf_planning.shape_of(gpu_of_card), profiles)
        for number, size in enumerate(sizes, start=1):
            if (card, number) not in made:
                yield (
                    _pci(card),
                    Device(
                        name=f"{device_of(card)}-vf{number}",
                        pci="",
                        kind="vf",
                        model=gpu_of_card.name,
                        driver=_driver(gpu_of_card),
                        memory_bytes=size.memory * _MIB,
                        millicores=size.millicores,
                        profile=size.profile,
                        vf_index=number,
                        taints=_taints(state, card, card),
                        holders=holders.get((card, number), ()),
                    ),
                )


def _device(uid: str, gpu: AllocatableGpu, number: int, taints: tuple[Taint, ...], holders: tuple[Holder, ...]) -> Device:
    return Device(
        name=device_of(uid),
        pci=_pci(uid),
        kind="vf" if number else "gpu",
        driver=_driver(gpu),
        model=gpu.name or gpu.model,
        memory_bytes=gpu.memory * _MIB,
        millicores=gpu.millicores,
        profile=gpu.profile,
        vf_index=number,
        shared=any(holder.share for holder in holders),
        health="Unhealthy" if taints else "Unknown",
        taints=taints,
        holders=holders,
    )


def _taints(state: GpuAllocationState, *uids: str) -> tuple[Taint, ...]:
    """Of the device and of its card: either keeps it from being given away."""
    found: dict[str, Taint] = {}
    for uid in uids:
        taint = (state.spec.tainted_devices or {}).get(uid)
        if taint is not None and uid in state.tainted:
            reasons = [reason for reason in taint.reason.split("+") if reason]
            for reason in sorted({*reasons, *(name for name, on in (taint.reasons or {}).items() if on)}):
                found[reason] = Taint(key=reason, effect="NoSchedule", by=f"GpuAllocationState {state.metadata.name}")
    return tuple(found.values())


def _driver(gpu: AllocatableGpu) -> str:
    """A state does not name it: the one that such a GPU belongs to."""
    model = models.find(gpu.model)
    return model.kmd if model is not None else ""


def _pci(uid: str) -> str:
    try:
        return parse_uid(uid)[0]
    except ValueError:
        return uid


def is_ours(body: Json) -> bool:
    """Whether a ResourceClass is this driver's to allocate."""
    return body.get("driverName") == CLASSIC_DRIVER_NAME and not body.get("structuredParameters")
