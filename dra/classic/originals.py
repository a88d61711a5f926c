"""What the original driver recorded of claims in GpuAllocationState, which its resource handles do not say: read once, then ours.

It allocated claims by writing their devices into `spec.allocatedClaims`, and where VFs were yet to be made it left their uid empty; the
plugin cut the card when the first of them was prepared. Here all of them on one card make the layout, so that whoever comes first cuts it
for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dra.classic import handle as handles
from dra.classic.handle import Handle, Part
from dra.classic.inventory import AllocatedClaim, AllocatedGpu, GpuAllocationState
from dra.errors import ClaimRefused
from dra.names import ClaimUid, NodeName
from dra.vf_profiles import FAIR_SHARE, for_device

ORIGINALS_FAIR_SHARE: Final = "fairShare"
WHOLE: Final = 1000
"""Millicores of a card."""
_MIB: Final = 1 << 20

Planned = tuple[str, int, AllocatedGpu]
"""(claim, place in it, VF that is yet to be made)"""


def handle_of(state: GpuAllocationState | None, uid: ClaimUid, node: NodeName) -> Handle:
    """The handle that our controller would have written for a claim of the original's.

    Raises:
        ClaimRefused: there is no such claim, or it holds nothing.
    """
    claims = (state.spec.allocated_claims if state is not None else None) or {}
    claim = claims.get(uid)
    if claim is None or not claim.gpus:
        raise ClaimRefused(
            f"the claim has no resource handle, and GpuAllocationState {node} knows no devices of it: delete its pod, so that it is "
            "allocated anew",
            reason="NoDevices",
        )
    planned = _planned(claims)
    parts: dict[tuple[str, bool], Part] = {}
    for place, gpu in enumerate(claim.gpus):
        if gpu.type == "vf" and not gpu.uid:
            of_card = planned[gpu.parentuid]
            index = next(at for at, (owner, there, _) in enumerate(of_card, start=1) if (owner, there) == (uid, place))
            earlier = parts.get((gpu.parentuid, True))
            layout = handles.run_length(_profile(vf) for _, _, vf in of_card)
            parts[gpu.parentuid, True] = Part(uid=gpu.parentuid, vfs=(*(earlier.vfs if earlier else ()), index), layout=layout)
        elif gpu.type == "vf":
            parts[gpu.uid, False] = Part(uid=gpu.uid, parent=gpu.parentuid, index=gpu.vfindex + 1)
        else:
            parts[gpu.uid, False] = Part(uid=gpu.uid, memory=gpu.memory, millicores=gpu.millicores)
    # Of a card held whole it recorded all that the card has, of a shared one what was asked for.
    shared = any(gpu.type != "vf" and gpu.millicores < WHOLE for gpu in claim.gpus)
    return Handle(version=handles.VERSION, node=node, parts=tuple(parts.values()), shared=shared)


def _planned(claims: Mapping[str, AllocatedClaim]) -> dict[str, list[Planned]]:
    """By card: the VFs that are yet to be made, VF 1 first. Their recorded places may be there twice or with gaps."""
    found: dict[str, list[Planned]] = {}
    for owner, claim in claims.items():
        for place, gpu in enumerate(claim.gpus or ()):
            if gpu.type == "vf" and not gpu.uid:
                found.setdefault(gpu.parentuid, []).append((owner, place, gpu))
    for vfs in found.values():
        vfs.sort(key=lambda each: (each[2].vfindex, each[0], each[1]))
    return found


def _profile(vf: AllocatedGpu) -> str:
    """The original left the choice to its plugin: the smallest that is large enough."""
    if vf.profile and vf.profile != ORIGINALS_FAIR_SHARE:
        return vf.profile
    device = vf.parentuid.partition("-")[2]
    if vf.profile == ORIGINALS_FAIR_SHARE or not (vf.memory or vf.millicores):
        return FAIR_SHARE.name
    fits = [one for one in for_device(device) if one.memory_ecc_bytes >= vf.memory * _MIB and one.share >= vf.millicores]
    return fits[-1].name if fits else FAIR_SHARE.name
