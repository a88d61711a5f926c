"""Whether a claim that a node prepared is still allocated to it: kubelets up to 1.30 may never say that it is over."""

from __future__ import annotations

from dra.classic import handle as handles
from dra.classic.names import CLASSIC_DRIVER_NAME, parse_uid
from dra.errors import ClaimRefused
from dra.kube.classic import ResourceClaim
from dra.names import Bdf, NodeName
from dra.records import Record


def why_gone(claim: ResourceClaim, record: Record, node: NodeName) -> str | None:
    """Why the API server's claim is no longer the one recorded; None if it is, or if that cannot be said."""
    if claim.metadata.uid != record.uid:
        return "was replaced by another of its name"
    allocation = claim.status.allocation
    if allocation is None:
        return "is no longer allocated"
    if not claim.status.reserved_for:
        return "is reserved for nobody"
    data = next((one.data for one in allocation.resource_handles or [] if one.driver_name == CLASSIC_DRIVER_NAME), "")
    if not data:  # the original driver's: it names a node, if anything
        return "is allocated elsewhere" if claim.node not in ("", node) else None
    try:
        handle = handles.parse(data)
        cards = {_card(part) for part in handle.parts}
    except (ClaimRefused, ValueError):
        return None
    if handle.node not in ("", node):
        return "is allocated elsewhere"
    if cards and not cards & {grant.card for grant in record.grants}:
        return "has other devices now"
    return None


def _card(part: handles.Part) -> Bdf:
    return parse_uid(part.parent or part.uid)[0]
