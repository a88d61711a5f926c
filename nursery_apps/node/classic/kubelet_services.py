"""The DRA service of kubelets 1.28 to 1.30, in their words on one side and the claim desk's on the other.

They call `/v1alpha3.Node/...` as 1.31 does, with messages of another shape: a claim comes with its handle, and CDI names are all the
answer. 1.30's NodeListAndWatchResources is of a model that did not live on: it ends with UNIMPLEMENTED, as the kubelet expects.
"""

from __future__ import annotations

import functools
from typing import Final

from dra.names import ClaimUid
from dra.wire import dra_classic_pb2 as wire
from nursery_apps import rpc
from nursery_apps.node.claim_desk import ClaimDesk, ClaimRef
from nursery_apps.node.kubelet_services import one_line, read, seconds

_SERVICE: Final = "v1alpha3.Node"
_NO_ANSWER: Final = "the driver has no answer for this claim; ask again"


def routes(desk: ClaimDesk) -> list[rpc.Route]:
    return [
        rpc.Unary(
            f"/{_SERVICE}/NodePrepareResources",
            wire.NodePrepareResourcesRequest.FromString,
            wire.NodePrepareResourcesResponse.SerializeToString,
            functools.partial(_prepare, desk),
        ),
        rpc.Unary(
            f"/{_SERVICE}/NodeUnprepareResources",
            wire.NodeUnprepareResourcesRequest.FromString,
            wire.NodeUnprepareResourcesResponse.SerializeToString,
            functools.partial(_unprepare, desk),
        ),
    ]


async def _prepare(desk: ClaimDesk, request: wire.NodePrepareResourcesRequest, call: rpc.Call) -> wire.NodePrepareResourcesResponse:
    claims, refused = read(_ref(claim) for claim in request.claims)
    outcomes = await desk.prepare(list(claims.values()), seconds(call)) if claims else {}
    reply = wire.NodePrepareResourcesResponse()
    for uid, why in refused.items():
        reply.claims[uid].error = why
    for claim in claims:
        outcome = outcomes.get(claim, _NO_ANSWER)
        if isinstance(outcome, str):
            reply.claims[claim].error = one_line(outcome)
        else:
            reply.claims[claim].cdi_devices.extend(dict.fromkeys(cdi_id for device in outcome for cdi_id in device.cdi_ids))
    return reply


async def _unprepare(desk: ClaimDesk, request: wire.NodeUnprepareResourcesRequest, call: rpc.Call) -> wire.NodeUnprepareResourcesResponse:
    claims, refused = read(_ref(claim) for claim in request.claims)
    outcomes = await desk.unprepare(list(claims.values()), seconds(call)) if claims else {}
    reply = wire.NodeUnprepareResourcesResponse()
    for uid, why in refused.items():
        reply.claims[uid].error = why
    for claim in claims:
        outcome = outcomes.get(claim, _NO_ANSWER)
        reply.claims[claim].error = "" if outcome is None else one_line(outcome)
    return reply


def _ref(claim: wire.Claim) -> ClaimRef:
    return ClaimRef(ClaimUid(claim.uid), claim.namespace, claim.name, claim.resource_handle)
