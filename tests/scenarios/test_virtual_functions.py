"""VFs from claim to claim: made when the first is wanted, taken away after the last, never under anybody; on a simulated kernel."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from dra import discovery
from dra.names import Bdf, ClaimUid
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks
from tests.fakes.claim_server import ClaimServer, claim

FLEX, B60 = Bdf("0000:4d:00.0"), Bdf("0000:18:00.0")
DIRTY = Bdf("0000:3d:00.0")


def sriov(vfs: object = "flex170_m4", *, pci_id: str = "0x56c0", **fields: Any) -> Sriov:
    return msgspec.convert({"mode": "fixed", "layouts": [{"select": {"pciId": pci_id}, "vfs": vfs}]} | fields, Sriov)


def name(pf: str, index: int, device: str) -> str:
    """Of a VF (0: the card) on these machines, whose offset and stride are 1."""
    domain, bus, _ = pf.split(":")
    return f"{domain}-{bus}-{index >> 3:02x}-{index & 7}-{device}"


def vfs(kernel: SimKernel, pf: str) -> int:
    return discovery.scan(kernel).by_bdf()[Bdf(pf)].vfs_now


def quotas(kernel: SimKernel, pf: str) -> set[str]:
    """Every quota of the card that is not nought."""
    base = f"sys/bus/pci/devices/{pf}"
    card = discovery.scan(kernel).by_bdf()[Bdf(pf)].card
    found = set()
    for vf in range(1, 32):
        for path in (f"{base}/drm/card{card}/prelim_iov/vf{vf}/gt/lmem_quota", f"{base}/sriov_admin/vf{vf}/profile/vram_quota"):
            if kernel.exists(path) and kernel.read(path) != "0\n":
                found.add(path)
    return found


async def test_vfs_are_made_for_the_first_claim_and_taken_away_after_the_last(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    server = ClaimServer(*(claim(f"c{index}", name(FLEX, index, "0x56c0")) for index in (1, 2)))
    async with ClaimNode(server, kernel=kernel, sriov=sriov()).running() as node:
        assert vfs(kernel, FLEX) == 0
        for uid in ("c1", "c2"):
            reply = await node.prepare(uid)
            assert not isinstance(reply, str) and reply[0].cdi_ids
        assert vfs(kernel, FLEX) == 4
        assert await node.unprepare("c1") is None
        assert vfs(kernel, FLEX) == 4
        assert await node.unprepare("c2") is None
    assert vfs(kernel, FLEX) == 0 and quotas(kernel, FLEX) == set()
    assert node.journal.ledger.value.carvings == {} and node.faults == []


async def test_a_card_and_its_vfs_are_never_both_given_away(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    server = ClaimServer(claim("vf", name(FLEX, 1, "0x56c0")), claim("card", name(FLEX, 0, "0x56c0")))
    async with ClaimNode(server, kernel=kernel, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("vf"), str)
        assert "held by claim vf" in str(await node.prepare("card"))
        await node.unprepare("vf")
        assert not isinstance(await node.prepare("card"), str)
        assert vfs(kernel, FLEX) == 0
        assert "held by claim card" in str(await node.prepare("vf"))


async def test_quotas_that_others_left_are_cleared_first(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    assert quotas(kernel, DIRTY) != set()
    async with ClaimNode(ClaimServer(claim("a", name(DIRTY, 3, "0x56c0"))), kernel=kernel, sriov=sriov("flex170_m8")).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        assert vfs(kernel, DIRTY) == 8
        await node.unprepare("a")
    assert vfs(kernel, DIRTY) == 0 and quotas(kernel, DIRTY) == set()


async def test_vfs_that_an_administrator_made_are_given_away_and_never_taken_away(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    theirs = "0000:2c:00.0"
    async with ClaimNode(ClaimServer(claim("a", name(theirs, 2, "0x56c0"))), kernel=kernel, sriov=sriov("flex170_m8")).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        assert await node.unprepare("a") is None
        assert any("somebody else made" in plan for plan in node.plans)
    assert vfs(kernel, theirs) == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EBUSY, errno.ENOMEM])
async def test_vfs_that_cannot_be_made_leave_a_clean_card_and_a_sentence(number: int, autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    kernel.fail(f"*/{FLEX}/sriov_numvfs", "sriov", number)
    async with ClaimNode(ClaimServer(claim("a", name(FLEX, 1, "0x56c0"))), kernel=kernel, sriov=sriov()).running() as node:
        assert f"cannot make 4 VFs of {FLEX}" in str(await node.prepare("a"))
        assert vfs(kernel, FLEX) == 0 and quotas(kernel, FLEX) == set()
        assert node.journal.ledger.value.carvings == {}
        assert not isinstance(await node.prepare("a"), str)  # the kubelet asks again, and the kernel can by now


async def test_an_eager_card_is_cut_before_anybody_asks_and_kept(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-4x-b60")
    settings = sriov([{"profile": "fair-share", "count": 6}], pci_id="0xe211", make="eager", keep="keep")
    async with ClaimNode(ClaimServer(), kernel=kernel, sriov=settings).running() as node:
        while any(vfs(kernel, pf) != 6 for pf in ("0000:18:00.0", "0000:3a:00.0", "0000:9a:00.0", "0000:ba:00.0")):
            await node.inventory.wait_newer(node.inventory.version)


async def test_claims_get_their_vfs_back_after_a_reboot(autojump_clock: MockClock) -> None:
    kernel, disks = machines.kernel("server-4x-b60"), Disks()
    server = ClaimServer(claim("a", name(B60, 2, "0xe211")))
    settings = sriov("b60_n4", pci_id="0xe211")
    async with ClaimNode(server, kernel=kernel, sriov=settings, disks=disks).running() as node:
        assert not isinstance(await node.prepare("a"), str)
    kernel.reboot("22222222-0000-4000-8000-000000000002")
    disks.reboot()
    async with ClaimNode(server, kernel=kernel, sriov=settings, disks=disks, boot="boot-2").running() as node:
        assert not isinstance(await node.prepare("a"), str)
        assert vfs(kernel, B60) == 4
        assert await node.unprepare("a") is None
    assert vfs(kernel, B60) == 0 and node.journal.ledger.value.carvings == {}


async def test_a_layout_that_changes_waits_for_the_vfs_in_use(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-4x-b60")
    server = ClaimServer(claim("a", name(B60, 2, "0xe211")), claim("b", name(B60, 5, "0xe211")))
    async with ClaimNode(server, kernel=kernel, sriov=sriov("b60_n4", pci_id="0xe211")).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        node.sriov.set(sriov("b60_n8", pci_id="0xe211"))
        assert "there is no VF 5" in str(await node.prepare("b")) or vfs(kernel, B60) == 4
        await node.unprepare("a")
        assert not isinstance(await node.prepare("b"), str)
        assert vfs(kernel, B60) == 8
        assert ClaimUid("b") in node.journal.ledger.value.claims
