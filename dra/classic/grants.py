"""From a resource handle to grants: what a claim is to hold of this node, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dra import cdi
from dra.classic import handle as handles
from dra.classic import names
from dra.classic.handle import Handle, Part
from dra.devices import Gpu, Inventory, Kind
from dra.errors import ClaimRefused, NotYet
from dra.names import Bdf, ClaimUid, DeviceName, NodeName, PoolName
from dra.records import Grant


def grants(
    handle: Handle, uid: ClaimUid, node: NodeName, inventory: Inventory, *, unknown_profiles: Callable[[Iterable[str]], Iterable[str]]
) -> tuple[Grant, ...]:
    """What the claim is to hold; for a monitor everything there is, held by nobody.

    Args:
        inventory: tells where the VFs of cards are.
        unknown_profiles: which of some names of profiles nobody knows here.

    Raises:
        ClaimRefused: it is another node's, or speaks of what cannot be.
        NotYet: a card that is to be cut is not there.
    """
    if handle.node != node and not (handle.monitor and not handle.node):
        raise ClaimRefused(f"the claim is allocated on node {handle.node[:63]!r}, this is {node}", reason="WrongNode")
    if handle.monitor:
        return tuple(_looked_at(gpu, uid, node) for gpu in inventory.gpus)
    if not handle.parts:
        raise ClaimRefused("the claim's resource handle names no device", reason="NoDevices")
    found: dict[DeviceName, Grant] = {}
    for part in handle.parts:
        for grant in _of_part(part, uid, node, inventory, shared=handle.shared):
            found[grant.device] = grant
        if unknown := list(unknown_profiles(name for name, _ in part.layout)):
            raise ClaimRefused(
                f"this node knows no VF profile {', '.join(name[:60] for name in unknown)}: update the node plugin, or "
                "name it in sriov.profiles of its settings",
                reason="UnknownProfile",
            )
    return tuple(found.values())


def _of_part(part: Part, uid: ClaimUid, node: NodeName, inventory: Inventory, *, shared: bool) -> Iterable[Grant]:
    bdf, device = _place(part.uid)
    if part.vfs:
        card = inventory.by_name.get(device)
        if card is None or card.vf_places is None:
            raise NotYet(f"{device}, which is to be cut into VFs, is not on this node or can have none", reason="DeviceAbsent")
        count = sum(many for _, many in part.layout)
        if not part.layout or min(part.vfs) < 1 or max(part.vfs) > count:
            raise ClaimRefused(f"the claim wants VFs {part.vfs} of {device}, which is to have {count}", reason="UnknownHandle")
        for index in part.vfs:
            vf = card.vf_places.bdf(card.bdf, index)
            yield _held(names.device_of(names.device_uid(vf, card.vf_places.device)), vf, uid, node, parent=bdf, layout=part.layout)
    elif part.parent:
        parent, _ = _place(part.parent)
        vf_now = inventory.by_name.get(device)
        if vf_now is not None and (vf_now.kind, vf_now.parent, vf_now.vf_index) != (Kind.VF, parent, part.index):
            raise ClaimRefused(f"{device} is not VF {part.index} of {parent} any more", reason="DeviceChanged")
        yield _held(device, bdf, uid, node, parent=parent)
    else:
        yield _held(device, bdf, uid, node, share_id=uid if shared else None)


def _held(
    device: DeviceName,
    bdf: Bdf,
    uid: ClaimUid,
    node: NodeName,
    *,
    parent: Bdf | None = None,
    share_id: str | None = None,
    layout: handles.Layout = (),
) -> Grant:
    return Grant(
        requests=(),
        pool=PoolName(node),
        device=device,
        bdf=bdf,
        parent=parent,
        share_id=share_id,
        layout=layout,
        cdi_ids=(cdi.qualified(cdi.device_of(uid, device)),),
    )


def _looked_at(gpu: Gpu, uid: ClaimUid, node: NodeName) -> Grant:
    return Grant(
        requests=(),
        pool=PoolName(node),
        device=gpu.name,
        bdf=gpu.bdf,
        parent=gpu.parent,
        admin=True,
        monitor=True,
        cdi_ids=(cdi.qualified(cdi.device_of(uid, gpu.name, monitor=True)),),
    )


def _place(uid: str) -> tuple[Bdf, DeviceName]:
    try:
        bdf, _ = names.parse_uid(uid)
        return bdf, names.device_of(uid)
    except ValueError as error:
        raise ClaimRefused(f"the claim's resource handle: {error}", reason="UnknownHandle") from None
