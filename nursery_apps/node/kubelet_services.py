"""The DRA services the kubelet calls, in its words on one side and the claim desk's on the other.

One pair of answers serves every version: the messages have the same field numbers (`dra/wire/dra.proto`), only the paths differ, and the
share id is for v1 alone. The 1.31 form of `/v1alpha3.Node/...` is meant here; the kubelets of 1.28 to 1.30 call that path with messages of
another shape (`nursery_apps.node.classic.kubelet_services`). Versions that are not served answer UNIMPLEMENTED, which is what the kubelet's
fallbacks expect.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

from dra import names
from dra.names import ClaimUid
from dra.wire import dra_pb2 as wire
from nursery_apps import rpc
from nursery_apps.node.claim_desk import ClaimDesk, ClaimRef, PreparedReply

_V1: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
_V1BETA1: Final = "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"
_V1ALPHA3: Final = "v1alpha3.Node"

SUPPORTED_VERSIONS: Final = ("v1.DRAPlugin", "v1beta1.DRAPlugin", "1.0.0")
"""For registration; one list for every kubelet. 1.34 and later take the first entry they know, 1.32 and 1.33 look for v1beta1, and 1.31
takes the highest version below 2 of those that parse, which is `1.0.0` alone: two numbers with a dot between are the least it reads. What
a kubelet does not know it passes over, so names of other services may follow."""

_KUBELET_SECONDS: Final = 45.0
"""The deadline every kubelet from 1.28 on sets; assumed for a caller that sets none."""
_LONGEST_ERROR_BYTES: Final = 1024
"""The text becomes part of an Event, whose message holds no more."""


def routes(desk: ClaimDesk) -> list[rpc.Route]:
    """Prepare and unprepare of the three services."""
    found: list[rpc.Route] = []
    for service in (_V1, _V1BETA1, _V1ALPHA3):
        found += [
            rpc.Unary(
                f"/{service}/NodePrepareResources",
                wire.NodePrepareResourcesRequest.FromString,
                wire.NodePrepareResourcesResponse.SerializeToString,
                functools.partial(_prepare, desk, service == _V1),
            ),
            rpc.Unary(
                f"/{service}/NodeUnprepareResources",
                wire.NodeUnprepareResourcesRequest.FromString,
                wire.NodeUnprepareResourcesResponse.SerializeToString,
                functools.partial(_unprepare, desk),
            ),
        ]
    return found


async def _prepare(
    desk: ClaimDesk, tells_shares: bool, request: wire.NodePrepareResourcesRequest, call: rpc.Call
) -> wire.NodePrepareResourcesResponse:
    claims, refused = read(ClaimRef(ClaimUid(claim.uid), claim.namespace, claim.name) for claim in request.claims)
    outcomes = await desk.prepare(list(claims.values()), seconds(call)) if claims else {}
    reply = wire.NodePrepareResourcesResponse()
    for uid, why in refused.items():
        reply.claims[uid].error = why
    for claim in claims:
        outcome = outcomes.get(claim, "the driver has no answer for this claim; ask again")
        if isinstance(outcome, str):
            reply.claims[claim].error = one_line(outcome)
        else:
            reply.claims[claim].devices.extend(_devices(outcome, tells_shares=tells_shares))
            reply.claims[claim].error = ""  # even with no device the claim has its entry
    return reply


async def _unprepare(desk: ClaimDesk, request: wire.NodeUnprepareResourcesRequest, call: rpc.Call) -> wire.NodeUnprepareResourcesResponse:
    claims, refused = read(ClaimRef(ClaimUid(claim.uid), claim.namespace, claim.name) for claim in request.claims)
    outcomes = await desk.unprepare(list(claims.values()), seconds(call)) if claims else {}
    reply = wire.NodeUnprepareResourcesResponse()
    for uid, why in refused.items():
        reply.claims[uid].error = why
    for claim in claims:
        outcome = outcomes.get(claim, "the driver has no answer for this claim; ask again")
        reply.claims[claim].error = "" if outcome is None else one_line(outcome)
    return reply


def read(asked: Iterable[ClaimRef]) -> tuple[dict[ClaimUid, ClaimRef], dict[str, str]]:
    """Each claim once, the first of its UID; and error texts for UIDs that cannot be any claim's."""
    claims: dict[ClaimUid, ClaimRef] = {}
    refused: dict[str, str] = {}
    for claim in asked:
        try:
            uid = names.claim_uid(claim.uid)
        except ValueError as error:
            refused[claim.uid] = one_line(f"{error} (claim {claim.namespace}/{claim.name})")
        else:
            claims.setdefault(uid, claim)
    return claims, refused


def _devices(reply: PreparedReply, *, tells_shares: bool) -> Iterable[wire.Device]:
    for device in reply:
        yield wire.Device(
            request_names=device.requests,
            pool_name=device.pool,
            device_name=device.device,
            cdi_device_ids=device.cdi_ids,
            share_id=device.share_id if tells_shares else None,
        )


def seconds(call: rpc.Call) -> float:
    return call.seconds_left() if call.has_deadline() else _KUBELET_SECONDS


def one_line(text: str) -> str:
    """Never empty, since an empty text means success."""
    line = " ".join(text.split()) or "refused without a reason; the driver's log says more"
    return line.encode()[:_LONGEST_ERROR_BYTES].decode(errors="ignore")
