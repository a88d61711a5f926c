"""The power goes before, in the middle of and after every durable step; the next life finishes what was begun and owns nothing twice."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from dra import cdi, journal, takeover
from dra.names import ClaimUid
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim
from tests.fakes.state_dir import Power, PowerCut

G1, G2, G3 = gpu(1), gpu(2), gpu(3)


def server() -> ClaimServer:
    return ClaimServer(claim("a", G1.name), claim("b", G2.name, G3.name), claim("rival", G1.name))


Acknowledged = dict[str, str]
"""claim -> "prepared" or "unprepared": what the kubelet was told."""
Story = Callable[[ClaimNode, Acknowledged], Awaitable[None]]


async def prepare_two(node: ClaimNode, told: Acknowledged) -> None:
    for uid in ("a", "b"):
        assert not isinstance(await node.prepare(uid), str)
        told[uid] = "prepared"


async def unprepare_two(node: ClaimNode, told: Acknowledged) -> None:
    for uid in ("a", "b"):
        told[uid] = "asked to unprepare"
        assert await node.unprepare(uid) is None
        told[uid] = "unprepared"


async def nothing_but_recovery(node: ClaimNode, told: Acknowledged) -> None:
    """Recovery itself is the story."""


def fresh() -> Disks:
    return Disks()


def both_prepared() -> Disks:
    disks = Disks()
    trio.run(partial(_live, disks, prepare_two, {}))
    return disks


def torn_and_littered() -> Disks:
    """A release cut short, a torn journal line, CDI files without an owner and one that is missing."""
    disks = both_prepared()
    disks.state[journal.FILE] = disks.state[journal.FILE] + b'00000000 {"uid":"torn'
    disks.cdi[cdi.file_name(ClaimUid("stranger"))] = b"{}"
    del disks.cdi[cdi.file_name(ClaimUid("b"))]
    return disks


def intels() -> Disks:
    disks = Disks()
    device = {"requests": ["gpu"], "poolName": "node1", "deviceName": G1.name, "cdiDeviceIDs": [f"intel.com/gpu={G1.name}"]}
    disks.state[takeover.FILE] = json.dumps({"a": {"Devices": [device], "Err": None}}).encode()
    return disks


async def _live(disks: Disks, story: Story, told: Acknowledged, power: Power | None = None, boot: str = "boot-1") -> None:
    async with ClaimNode(server(), G1, G2, G3, disks=disks, power=power, boot=boot).running() as node:
        await story(node, told)


def _live_until_cut(disks: Disks, story: Story, power: Power, told: Acknowledged) -> None:
    try:
        trio.run(partial(_live, disks, story, told, power))
    except PowerCut:
        return
    except BaseExceptionGroup as group:
        if group.subgroup(PowerCut) is None:  # whatever else failed in a machine without power is no finding
            raise


async def _afterwards(disks: Disks, told: Acknowledged, boot: str) -> None:
    """The next life: recovered, asked again by the kubelet, and in the end asked to let go of everything."""
    async with ClaimNode(server(), G1, G2, G3, disks=disks, boot=boot).running() as node:
        ledger = node.journal.ledger.value
        for uid, outcome in told.items():
            if outcome == "prepared":
                assert ClaimUid(uid) in ledger.claims, f"{uid} was acknowledged and is lost"
        held = [grant.device for record in ledger.records() for grant in record.grants]
        assert len(held) == len(set(held)), "a device is held twice"
        for name in disks.cdi:
            owner = cdi.uid_of_file(name)
            assert owner is None or owner in ledger.claims, f"{name} has no owner"
        if ClaimUid("a") in ledger.claims:
            assert "held by claim a" in str(await node.prepare("rival"))
            await node.unprepare("rival")
        for uid, outcome in told.items():
            if outcome == "unprepared":
                assert ClaimUid(uid) not in ledger.claims, f"{uid} was let go of and is back"
        for uid in ("a", "b"):
            assert not isinstance(await node.prepare(uid), str)
        for uid in ("a", "b", "rival", *ledger.claims):
            assert await node.unprepare(uid) is None
        assert dict(node.journal.ledger.value.claims) == {}
        assert node.journal.ledger.value.parked == ()
        await node.reconciler.compare()
        assert disks.cdi == {}


@pytest.mark.parametrize("reboot", [False, True], ids=["same-boot", "reboot"])
@pytest.mark.parametrize(
    ("start", "story"),
    [
        (fresh, prepare_two),
        (both_prepared, unprepare_two),
        (torn_and_littered, nothing_but_recovery),
        (intels, nothing_but_recovery),
    ],
    ids=["prepare", "unprepare", "recovery", "takeover"],
)
def test_cut_at_every_point(
    start: Callable[[], Disks], story: Story, reboot: bool, figure: Callable[[str, int], None], request: pytest.FixtureRequest
) -> None:
    begin = start()
    whole = Power()
    _live_until_cut(copy.deepcopy(begin), story, whole, {})
    for point in range(whole.points):
        disks, told = copy.deepcopy(begin), {}
        if start is both_prepared:
            told = {"a": "prepared", "b": "prepared"}
        _live_until_cut(disks, story, Power(cut_at=point), told)
        if reboot:
            disks.reboot()
        trio.run(partial(_afterwards, disks, told, "boot-2" if reboot else "boot-1"), clock=trio.testing.MockClock(autojump_threshold=0))
    assert whole.points > 0
    figure(f"power cut, {request.node.callspec.id}: points", whole.points)
