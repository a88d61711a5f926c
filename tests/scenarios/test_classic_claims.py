"""Claims on kubelets up to 1.30, from a controller's handle to device nodes and back, on a simulated kernel."""

from __future__ import annotations

import errno
import json
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dra import cdi, discovery
from dra.classic.handle import Part
from dra.names import Bdf, ClaimUid
from dra.sriov_settings import Sriov
from nursery_apps.seams import Unavailable
from tests.fakes import classic_node, machines
from tests.fakes.claim_node import Disks
from tests.fakes.classic_node import ClassicNode, count, text, vfs, whole
from tests.fakes.kube_api import until

ONE, TWO = "0000:4d:00.0", "0000:5d:00.0"
CARD, OTHER = f"{ONE}-0x56c0", f"{TWO}-0x56c0"
M4 = ("flex170_m4", 4)


def nodes_of(disks: Disks, uid: str) -> list[str]:
    document = json.loads(disks.cdi[cdi.file_name(ClaimUid(uid))])
    return [node["path"] for entry in document["devices"] for node in entry["containerEdits"]["deviceNodes"]]


async def test_a_whole_gpu_needs_the_handle_and_no_api_server(autojump_clock: MockClock) -> None:
    server = classic_node.api()
    server.failures = [("*", Unavailable(0, "Down", "nobody answers"))] * 100
    kernel = machines.kernel("server-8x-flex170")
    async with ClassicNode({"a": text(whole(CARD))}, kernel=kernel, server=server).running() as node:
        ids = await node.cdi_ids("a")
        assert ids == ("intel.com/gpu=a-0000-4d-00-0-0x56c0",)
        assert len(nodes_of(node.disks, "a")) >= 2
        assert await node.cdi_ids("a") == ids
        assert await node.unprepare("a") is None
        assert node.disks.cdi == {} and server.calls == []


async def test_a_gpu_is_one_claims_or_several_share_it(autojump_clock: MockClock) -> None:
    part = Part(uid=CARD, memory=4000, millicores=300)
    handles = {"a": text(part, shared=True), "b": text(part, shared=True), "c": text(whole(CARD))}
    async with ClassicNode(handles, kernel=machines.kernel("server-8x-flex170")).running() as node:
        assert await node.cdi_ids("a") != await node.cdi_ids("b")
        assert "held by claim" in str(await node.prepare("c"))
        await node.unprepare("a")
        await node.unprepare("b")
        await node.cdi_ids("c")
        assert "held by claim c" in str(await node.prepare("a"))


async def test_a_card_is_cut_once_for_all_claims_on_it_and_made_whole_after_the_last(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    handles = {"a": text(vfs(CARD, (2,), M4)), "b": text(vfs(CARD, (1, 3), M4))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        assert await node.cdi_ids("a") == ("intel.com/gpu=a-0000-4d-00-2-0x56c0",)
        assert count(kernel, ONE) == 4
        assert len(await node.cdi_ids("b")) == 2
        made = [step for _, step in node.steps].count("MakeVfs")
        await node.unprepare("a")
        assert count(kernel, ONE) == 4
        await node.unprepare("b")
    assert made == 1 and count(kernel, ONE) == 0
    assert node.journal.ledger.value.carvings == {} and node.faults == []


async def test_vfs_stay_for_the_next_claim_if_the_settings_say_so_and_go_for_one_that_needs_the_card(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    handles = {
        "a": text(vfs(CARD, (1,), M4)),
        "b": text(vfs(CARD, (2,), M4)),
        "c": text(whole(CARD)),
        "d": text(vfs(CARD, (1,), ("flex170_m2", 2))),
    }
    async with ClassicNode(handles, kernel=kernel, sriov=Sriov(keep="keep")).running() as node:
        for uid in ("a", "b"):
            await node.cdi_ids(uid)
            await node.unprepare(uid)
            await trio.sleep(5)
            assert count(kernel, ONE) == 4
        await node.cdi_ids("d")
        assert count(kernel, ONE) == 2
        await node.unprepare("d")
        await node.cdi_ids("c")
        assert count(kernel, ONE) == 0


async def test_a_claim_that_needs_the_card_cut_otherwise_waits_inside_the_call(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    handles = {"a": text(vfs(CARD, (1,), M4)), "b": text(vfs(CARD, (2,), ("flex170_m2", 2)))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        await node.cdi_ids("a")
        refused = await node.prepare("b")
        assert "cut into 4 × flex170_m4 for claim a" in str(refused) and "35 s" in str(refused)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.cdi_ids, "b")
            await trio.sleep(3)
            await node.unprepare("a")
        assert count(kernel, ONE) == 2


async def test_cards_of_one_claim_are_cut_at_the_same_time(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    handles = {"a": text(vfs(CARD, (1,), M4), vfs(OTHER, (1, 2), M4))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        assert len(await node.cdi_ids("a")) == 3
        assert (count(kernel, ONE), count(kernel, TWO)) == (4, 4)
        making = [bdf for bdf, step in node.steps if step in ("Provision", "MakeVfs")]
        assert making != sorted(making), "one after the other"
        await node.unprepare("a")
    assert (count(kernel, ONE), count(kernel, TWO)) == (0, 0)


async def test_a_vf_that_an_administrator_made_is_handed_out_and_stays(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    theirs = "0000:2c:00.0-0x56c0"
    handles = {
        "a": text(Part(uid="0000:2c:00.2-0x56c0", parent=theirs, index=2)),
        "b": text(Part(uid="0000:2c:00.2-0x56c0", parent=theirs, index=3)),
        "c": text(vfs(theirs, (1,), M4)),
        "d": text(whole(theirs)),
    }
    async with ClassicNode(handles, kernel=kernel).running() as node:
        await node.cdi_ids("a")
        assert "is not VF 3" in str(await node.prepare("b"))
        await node.unprepare("a")
        assert "somebody else made" in str(await node.prepare("c"))
        assert "has 4 VFs" in str(await node.prepare("d"))
        assert set(node.journal.ledger.value.claims) == set()
    assert count(kernel, "0000:2c:00.0") == 4


async def test_a_monitor_sees_everything_and_holds_nothing(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    handles = {"m": text(monitor=True), "old": "monitor", "a": text(whole(CARD))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        everything = len(discovery.scan(kernel).gpus)
        assert len(await node.cdi_ids("m")) == len(await node.cdi_ids("old")) == everything
        await node.cdi_ids("a")
        assert await node.unprepare("m") is None


@pytest.mark.parametrize(
    ("data", "text_of_it"),
    [
        (text(whole(CARD), node="worker-9"), "allocated on node 'worker-9', this is node1"),
        (text(vfs(CARD, (1,), ("nobodys", 2))), "knows no VF profile nobodys"),
        (text(vfs(CARD, (5,), M4)), "wants VFs (5,)"),
        (text(Part(uid="rubbish")), "not a device uid"),
        (text(), "names no device"),
        ("{}", "has version 0"),
        ("not JSON", "not this driver's"),
    ],
)
async def test_a_handle_that_cannot_be_honoured_is_refused_in_one_sentence(data: str, text_of_it: str, autojump_clock: MockClock) -> None:
    async with ClassicNode({"a": data}, kernel=machines.kernel("server-8x-flex170")).running() as node:
        assert text_of_it in str(await node.prepare("a"))
        assert node.journal.ledger.value.claims == {}


async def test_a_profile_of_the_settings_is_known(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    sriov = msgspec.convert({"profiles": [{"name": "small", "memory": "1Gi"}]}, Sriov)
    async with ClassicNode({"a": text(vfs(CARD, (3,), ("small", 3)))}, kernel=kernel, sriov=sriov).running() as node:
        await node.cdi_ids("a")
        assert count(kernel, ONE) == 3


async def test_a_card_that_the_kernel_will_not_cut_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    kernel.fail(f"*/{TWO}/sriov_numvfs", "sriov", errno.ENOSPC)
    async with ClassicNode({"a": text(vfs(CARD, (1,), M4), vfs(OTHER, (1,), M4))}, kernel=kernel).running() as node:
        assert f"cannot make 4 VFs of {TWO}" in str(await node.prepare("a"))
        await until(lambda: count(kernel, ONE) == 0)
        assert node.journal.ledger.value.claims == {} and node.journal.ledger.value.carvings == {}
        assert len(await node.cdi_ids("a")) == 2  # the kubelet asks again, and the kernel can by now


async def test_claims_get_their_layout_back_after_a_reboot_whoever_comes_first(autojump_clock: MockClock) -> None:
    kernel, disks = machines.kernel("server-8x-flex170"), Disks()
    layout = (("flex170_m2", 1), ("flex170_m8", 3))
    handles = {"a": text(vfs(CARD, (1,), *layout)), "b": text(vfs(CARD, (4,), *layout))}
    async with ClassicNode(handles, kernel=kernel, disks=disks).running() as node:
        first = [await node.cdi_ids(uid) for uid in ("a", "b")]
    kernel.reboot("22222222-0000-4000-8000-000000000002")
    disks.reboot()
    async with ClassicNode(handles, kernel=kernel, disks=disks, boot="boot-2").running() as node:
        assert [await node.cdi_ids(uid) for uid in ("b", "a")] == first[::-1]
        assert count(kernel, ONE) == 4
        await node.unprepare("a")
        await node.unprepare("b")
    assert count(kernel, ONE) == 0


def state_with(**claims: Any) -> dict[str, Any]:
    return {"metadata": {"name": "node1"}, "spec": {"allocatedClaims": {uid: {"gpus": gpus} for uid, gpus in claims.items()}}}


def planned(index: int, profile: str = "flex170_m4") -> dict[str, Any]:
    return {"uid": "", "memory": 3000, "millicores": 250, "type": "vf", "parentuid": CARD, "vfindex": index, "profile": profile}


async def test_claims_that_the_original_driver_allocated_are_prepared(autojump_clock: MockClock) -> None:
    kernel, server = machines.kernel("server-8x-flex170"), classic_node.api()
    body = state_with(
        gpu=[{"uid": OTHER, "memory": 14248, "millicores": 1000, "type": "gpu", "parentuid": "", "vfindex": 0, "profile": ""}],
        first=[planned(0), planned(0)],
        second=[planned(1, "")],
    )
    server.put("gpuallocationstates", body, namespace=classic_node.NAMESPACE)
    async with ClassicNode({}, kernel=kernel, server=server).running() as node:
        assert await node.cdi_ids("gpu") == ("intel.com/gpu=gpu-0000-5d-00-0-0x56c0",)
        second = await node.cdi_ids("second")
        first = await node.cdi_ids("first")
        assert count(kernel, ONE) == 3
        assert [one.rpartition("-0000-")[2] for one in (*first, *second)] == ["4d-00-1-0x56c0", "4d-00-2-0x56c0", "4d-00-3-0x56c0"]
        server.remove("gpuallocationstates", "node1", namespace=classic_node.NAMESPACE)
        assert await node.cdi_ids("second") == second
        assert "knows no devices of it" in str(await node.prepare("stranger"))


async def test_cards_that_settings_cut_are_cut_at_once_and_offered_by_their_vfs(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    sriov = msgspec.convert({"mode": "fixed", "layouts": [{"select": {"bdf": ONE}, "vfs": "flex170_m4"}]}, Sriov)
    vf = f"{ONE[:-1]}3-0x56c0"
    async with ClassicNode({"a": text(Part(uid=vf, parent=CARD, index=3))}, kernel=kernel, sriov=sriov).running() as node:
        await until(lambda: node.published(vf) is not None)
        assert count(kernel, ONE) == 4 and node.published(CARD) is None
        told = node.published(vf)
        assert told is not None and (told["profile"], told["vfindex"], told["parentuid"], told["millicores"]) == ("", 2, CARD, 250)
        whole_card = node.published(OTHER)
        assert whole_card is not None and whole_card["maxvfs"] == 0
        await node.cdi_ids("a")
        await node.unprepare("a")
        await trio.sleep(10)
        assert count(kernel, ONE) == 4


async def test_the_controller_is_told_what_may_be_cut_and_what_was_cut(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    async with ClassicNode({"a": text(vfs(CARD, (2,), M4))}, kernel=kernel).running() as node:
        await until(lambda: node.published(CARD) is not None)
        card = node.published(CARD)
        assert card == {
            "uid": CARD,
            "memory": 14248,
            "millicores": 1000,
            "model": "0x56c0",
            "type": "gpu",
            "parentuid": "",
            "maxvfs": 31,
            "vfindex": 0,
            "ecc": True,
            "name": "Flex 170",
            "profile": "",
            "tiles": 1,
            "quotas": "prelim",
            "bulkQuota": False,
        }
        await node.cdi_ids("a")
        await until(lambda: node.published(f"{ONE[:-1]}4-0x56c0") is not None)
        spare = node.published(f"{ONE[:-1]}4-0x56c0")
        assert spare is not None and (spare["profile"], spare["type"], spare["vfindex"], spare["maxvfs"]) == ("flex170_m4", "vf", 3, 0)
        assert node.published(CARD) == card
        theirs = node.published("0000:2c:00.1-0x56c0")
        assert theirs is not None and theirs["profile"] == "" and node.published("0000:2c:00.0-0x56c0") is None
        await node.unprepare("a")
        await until(lambda: node.published(f"{ONE[:-1]}4-0x56c0") is None)


async def test_where_the_administrator_forbids_it_nothing_is_offered_to_be_cut(autojump_clock: MockClock) -> None:
    async with ClassicNode({}, kernel=machines.kernel("server-8x-flex170"), sriov=Sriov(mode="off")).running() as node:
        await until(lambda: node.published(CARD) is not None)
        card = node.published(CARD)
        assert card is not None and card["maxvfs"] == 0


async def test_a_card_whose_cut_failed_is_not_offered_for_cutting_for_a_while(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    kernel.fail(f"*/{ONE}/sriov_numvfs", "sriov", errno.EIO)
    async with ClassicNode({"a": text(vfs(CARD, (1,), M4))}, kernel=kernel).running() as node:
        assert isinstance(await node.prepare("a"), str)

        def may_be_cut() -> int:
            card = node.published(CARD)
            return card["maxvfs"] if card is not None else -1

        await until(lambda: may_be_cut() == 0)
        await until(lambda: may_be_cut() == 31)


async def test_a_claim_for_a_card_that_is_not_there_waits_for_it(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-8x-flex170")
    kernel.unplug(Bdf(ONE))
    async with ClassicNode({"a": text(vfs(CARD, (1,), M4))}, kernel=kernel).running() as node:
        assert "not on this node" in str(await node.prepare("a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.cdi_ids, "a")
            await trio.sleep(5)
            kernel.plug(Bdf(ONE))
        assert count(kernel, ONE) == 4
