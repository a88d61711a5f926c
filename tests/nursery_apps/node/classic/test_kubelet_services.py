"""The 1.28 form of the kubelet's calls, over real sockets, asked by gRPC's C core."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from dra.names import ClaimUid
from dra.wire import dra_classic_pb2 as wire
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.node.claim_desk import ClaimRef, PreparedDevice, PreparedReply
from nursery_apps.node.classic import kubelet_services
from tests.fakes.kubelet import V1, FakeKubelet, Refusal

KUBELET = FakeKubelet()
PREPARE, UNPREPARE = "/v1alpha3.Node/NodePrepareResources", "/v1alpha3.Node/NodeUnprepareResources"
# One claim: namespace "ns", uid "u1", name "c", resource_handle "h", and 1.30's structured_resource_handle, which is never read.
REQUEST = bytes.fromhex("0a10 0a026e73 12027531 1a0163 220168 2a00")


class ScriptedDesk:
    def __init__(self, reply: PreparedReply | str = (), left: str | None = None) -> None:
        self.asked: list[ClaimRef] = []
        self._reply, self._left = reply, left

    async def prepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, PreparedReply | str]:
        self.asked += claims
        return {claim.uid: self._reply for claim in claims}

    async def unprepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, str | None]:
        self.asked += claims
        return {claim.uid: self._left for claim in claims}


@asynccontextmanager
async def served(desk: ScriptedDesk) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="dra") as directory, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(RpcServer().serve_unix, kubelet_services.routes(desk), f"{directory}/dra.sock")
            yield f"{directory}/dra.sock"
            nursery.cancel_scope.cancel()


async def test_prepare_brings_the_handle_and_takes_cdi_names() -> None:
    ids = ("intel.com/gpu=u1-0000-03-00-0-0x56c0", "intel.com/gpu=u1-0000-03-00-1-0x56c0")
    desk = ScriptedDesk(tuple(PreparedDevice((), "n1", "d", (one,)) for one in (*ids, ids[0])))
    async with served(desk) as endpoint:
        answer = await KUBELET.call(endpoint, PREPARE, REQUEST)
    assert desk.asked == [ClaimRef(ClaimUid("u1"), "ns", "c", "h")]
    first = b"".join(b"\x0a" + bytes([len(one)]) + one.encode() for one in ids)
    entry = b"\x0a\x02u1\x12" + bytes([len(first)]) + first
    assert answer == b"\x0a" + bytes([len(entry)]) + entry


async def test_every_claim_has_its_entry_whatever_becomes_of_it() -> None:
    for desk, error in ((ScriptedDesk(), ""), (ScriptedDesk("no\nway"), "no way")):
        async with served(desk) as endpoint:
            answer = wire.NodePrepareResourcesResponse.FromString(await KUBELET.call(endpoint, PREPARE, REQUEST))
        assert {uid: (list(one.cdi_devices), one.error) for uid, one in answer.claims.items()} == {"u1": ([], error)}
    for desk, error in ((ScriptedDesk(), ""), (ScriptedDesk(left="not yet"), "not yet")):
        async with served(desk) as endpoint:
            left = wire.NodeUnprepareResourcesResponse.FromString(await KUBELET.call(endpoint, UNPREPARE, REQUEST))
        assert {uid: one.error for uid, one in left.claims.items()} == {"u1": error}


async def test_a_uid_that_is_none_fails_alone() -> None:
    request = wire.NodePrepareResourcesRequest(claims=[wire.Claim(uid="../x"), wire.Claim(uid="u1", resource_handle="h")])
    async with served(ScriptedDesk()) as endpoint:
        answer = wire.NodePrepareResourcesResponse.FromString(await KUBELET.call(endpoint, PREPARE, request.SerializeToString()))
    assert "not a claim UID" in answer.claims["../x"].error and answer.claims["u1"].error == ""


@pytest.mark.parametrize(
    "method", ["/v1alpha3.Node/NodeListAndWatchResources", "/v1alpha2.Node/NodePrepareResource", f"/{V1}/NodePrepareResources"]
)
async def test_what_these_kubelets_may_try_besides_is_not_there(method: str) -> None:
    async with served(ScriptedDesk()) as endpoint:
        with pytest.raises(Refusal) as refusal:
            await KUBELET.call(endpoint, f"/{method}", b"")
    assert refusal.value.status == "UNIMPLEMENTED"
