from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from dra.names import ClaimUid
from dra.wire import dra_pb2
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.node import kubelet_services
from nursery_apps.node.claim_desk import ClaimRef, PreparedDevice, PreparedReply
from tests.fakes.kubelet import SERVICES, V1, V1ALPHA3, V1BETA1, FakeKubelet, Refusal

DEVICE = PreparedDevice(("gpu",), "node1", "0000-03-00-0-0x56c0", ("intel.com/gpu=a",), "s")
KUBELET = FakeKubelet()


class ScriptedDesk:
    """Answers what it was given and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[ClaimRef], float]] = []
        self.prepared: dict[str, PreparedReply | str] = {}
        self.unprepared: dict[str, str | None] = {}

    async def prepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, PreparedReply | str]:
        self.asked.append((claims, deadline_seconds))
        return {ClaimUid(uid): reply for uid, reply in self.prepared.items()}

    async def unprepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, str | None]:
        self.asked.append((claims, deadline_seconds))
        return {ClaimUid(uid): reply for uid, reply in self.unprepared.items()}


@asynccontextmanager
async def served(desk: ScriptedDesk) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="dra") as directory, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(RpcServer().serve_unix, kubelet_services.routes(desk), f"{directory}/dra.sock")
            yield f"{directory}/dra.sock"
            nursery.cancel_scope.cancel()


# One claim: namespace "ns", uid "u1", name "c".
REQUEST = bytes.fromhex("0a0b 0a026e73 12027531 1a0163")
DEVICE_BYTES = (
    bytes.fromhex("0a03")
    + b"gpu"
    + bytes.fromhex("1205")
    + b"node1"
    + bytes.fromhex("1a13")
    + b"0000-03-00-0-0x56c0"
    + bytes.fromhex("220f")
    + b"intel.com/gpu=a"
)
SHARE_BYTES = bytes.fromhex("2a01") + b"s"


def claim_entry(value: bytes) -> bytes:
    entry = bytes.fromhex("0a02") + b"u1" + b"\x12" + bytes([len(value)]) + value
    return b"\x0a" + bytes([len(entry)]) + entry


@pytest.mark.parametrize(
    ("service", "device"),
    [(V1, DEVICE_BYTES + SHARE_BYTES), (V1BETA1, DEVICE_BYTES), (V1ALPHA3, DEVICE_BYTES)],
    ids=["v1", "v1beta1", "v1alpha3"],
)
async def test_prepare_byte_for_byte(service: str, device: bytes) -> None:
    desk = ScriptedDesk()
    desk.prepared = {"u1": (DEVICE,)}
    async with served(desk) as endpoint:
        answer = await KUBELET.call(endpoint, f"/{service}/NodePrepareResources", REQUEST)
    assert answer == claim_entry(b"\x0a" + bytes([len(device)]) + device)
    ((claims, seconds),) = desk.asked
    assert claims == [ClaimRef(ClaimUid("u1"), "ns", "c")]
    assert 44 < seconds < 46  # the client rounds up a little


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("outcome", "value"), [(None, b""), ("busy", b"\x0a\x04busy")])
async def test_unprepare_byte_for_byte(service: str, outcome: str | None, value: bytes) -> None:
    desk = ScriptedDesk()
    desk.unprepared = {"u1": outcome}
    async with served(desk) as endpoint:
        assert await KUBELET.call(endpoint, f"/{service}/NodeUnprepareResources", REQUEST) == claim_entry(value)


@pytest.mark.parametrize("service", SERVICES)
async def test_every_claim_gets_one_entry_and_one_error_spoils_no_other(service: str) -> None:
    desk = ScriptedDesk()
    desk.prepared = {"good": (), "bad": "no such\n\n device  here", "stranger": ()}
    desk.unprepared = {"good": None, "bad": "", "stranger": None}
    claims = [
        ("ns", "good", "a"),
        ("ns", "bad", "b"),
        ("other", "good", "a again"),
        ("ns", "../../etc", "c"),
        ("ns", "", "d"),
        ("ns", "lost", "e"),
    ]
    async with served(desk) as endpoint:
        prepared = await KUBELET.prepare(endpoint, claims, service=service)
        unprepared = await KUBELET.unprepare(endpoint, claims, service=service)
    assert set(prepared) == set(unprepared) == {"good", "bad", "../../etc", "", "lost"}
    assert prepared["good"].error == unprepared["good"] == ""
    assert prepared["bad"].error == "no such device here"
    assert unprepared["bad"] != ""  # an empty text would mean success
    for uid in ("../../etc", ""):
        assert "not a claim UID" in prepared[uid].error
        assert "not a claim UID" in unprepared[uid]
    assert "no answer" in prepared["lost"].error
    for asked, _ in desk.asked:
        assert asked == [ClaimRef(ClaimUid("good"), "ns", "a"), ClaimRef(ClaimUid("bad"), "ns", "b"), ClaimRef(ClaimUid("lost"), "ns", "e")]


async def test_long_errors_are_cut_between_characters() -> None:
    desk = ScriptedDesk()
    desk.prepared = {"u1": "a" + "é" * 2000}
    async with served(desk) as endpoint:
        answer = await KUBELET.prepare(endpoint, [("ns", "u1", "c")])
    assert answer["u1"].error == "a" + "é" * 511


async def test_no_claims_are_answered_with_none_and_nobody_is_bothered() -> None:
    desk = ScriptedDesk()
    async with served(desk) as endpoint:
        for method in ("NodePrepareResources", "NodeUnprepareResources"):
            assert await KUBELET.call(endpoint, f"/{V1}/{method}", b"") == b""
        assert await KUBELET.prepare(endpoint, [("ns", "not ok", "c")])
    assert desk.asked == []


@pytest.mark.parametrize(
    "method",
    [
        "/v1alpha2.Node/NodePrepareResource",
        "/v1alpha3.Node/NodeListAndWatchResources",
        "/v1alpha1.DRAResourceHealth/NodeWatchResources",
        f"/{V1}/NodeDance",
    ],
)
async def test_what_is_not_served_is_unimplemented(method: str) -> None:
    async with served(ScriptedDesk()) as endpoint:
        with pytest.raises(Refusal) as refused:
            await KUBELET.call(endpoint, method, b"")
    assert refused.value.status == "UNIMPLEMENTED"


async def test_a_caller_without_deadline_is_given_the_kubelets() -> None:
    desk = ScriptedDesk()
    desk.prepared = {"u1": ()}
    async with served(desk) as endpoint:
        await KUBELET.call(endpoint, f"/{V1}/NodePrepareResources", REQUEST, timeout=None)
    assert desk.asked[0][1] == 45


def test_share_id_has_presence() -> None:
    assert not dra_pb2.Device().HasField("share_id")
    assert dra_pb2.Device(share_id="").HasField("share_id")


def semantic_version(entry: str) -> tuple[int, ...] | None:
    """How kubelets up to 1.31 read an entry: optional v, at least two numbers with dots, any tail."""
    numbers: list[int] = []
    for part in entry.removeprefix("v").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers) if len(numbers) >= 2 else None


def test_every_kubelet_finds_a_version_it_knows() -> None:
    offered = kubelet_services.SUPPORTED_VERSIONS
    parsed = [version for entry in offered if (version := semantic_version(entry)) is not None]
    assert [version for version in parsed if version[0] <= 1] == [(1, 0, 0)]  # up to 1.31
    assert next(known for known in ("v1beta1.DRAPlugin", "v1alpha3.NodeService") if known in offered) == "v1beta1.DRAPlugin"  # 1.32, 1.33
    assert next(entry for entry in offered if entry in ("v1.DRAPlugin", "v1beta1.DRAPlugin")) == "v1.DRAPlugin"  # 1.34 and later
