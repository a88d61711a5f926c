"""Journal, CDI directory, hardware and API server are brought together, and what is repaired is reported."""

from __future__ import annotations

import json

import msgspec
import trio
import trio.testing

from dra import cdi, takeover
from dra.devices import Inventory
from dra.names import ClaimUid
from nursery_apps.node import reconciler
from nursery_apps.seams import Unavailable
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim

G1, G2 = gpu(1), gpu(2)
FILE = cdi.file_name(ClaimUid("a"))


async def prepared(*, boot: str = "boot-1") -> Disks:
    disks = Disks()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks, boot=boot).running() as node:
        assert not isinstance(await node.prepare("a"), str)
    return disks


async def test_after_a_reboot_the_cdi_file_is_back_with_todays_device_numbers() -> None:
    disks = await prepared()
    disks.reboot()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), gpu(1, minor=5), disks=disks, boot="boot-2").running():
        assert b"/dev/dri/renderD133" in disks.cdi[FILE]


async def test_a_restart_touches_nothing_that_is_right() -> None:
    disks = await prepared()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
        assert node.power.points == 0


async def test_a_file_nobody_owns_is_removed_and_reported_and_foreign_files_are_not_ours() -> None:
    disks = await prepared()
    disks.cdi[cdi.file_name(ClaimUid("stranger"))] = b"{}"
    disks.cdi["nvidia.com-gpu_x.json"] = b"{}"
    async with ClaimNode(ClaimServer(), G1, disks=disks).running() as node:
        assert sorted(disks.cdi) == sorted([FILE, "nvidia.com-gpu_x.json"])
        assert [finding[:2] for finding in node.findings] == [("OrphanedFile", "stranger")]


async def test_what_another_instance_prepares_in_a_rolling_update_is_nobodys_orphan() -> None:
    disks, server = Disks(), ClaimServer(claim("a", G1.name))
    async with (
        ClaimNode(server, G1, disks=disks).running() as old,
        ClaimNode(server, G1, disks=disks).running() as new,
    ):
        assert not isinstance(await new.prepare("a"), str)
        assert ClaimUid("a") not in old.journal.ledger.value.claims, "it looked before"
        await old.reconciler.compare()
        assert FILE in disks.cdi and old.findings == []


async def test_a_file_is_no_orphan_if_its_claim_is_granted_while_that_is_looked_into() -> None:
    disks, server = Disks(), ClaimServer(claim("a", G1.name))
    async with (
        ClaimNode(server, G1, disks=disks).running() as old,
        ClaimNode(server, G1, disks=disks).running() as new,
    ):
        assert not isinstance(await new.prepare("a"), str)
        await old.desk.settle([old.ref("a")])
        assert FILE in disks.cdi and ClaimUid("a") in old.journal.ledger.value.claims


async def test_a_claim_is_released_by_an_instance_that_did_not_see_it_prepared() -> None:
    disks, server = Disks(), ClaimServer(claim("a", G1.name))
    async with (
        ClaimNode(server, G1, disks=disks).running() as old,
        ClaimNode(server, G1, disks=disks).running() as new,
    ):
        assert not isinstance(await new.prepare("a"), str)
        assert await old.unprepare("a") is None
        await new.journal.refresh()
        assert FILE not in disks.cdi and not new.journal.ledger.value.claims


async def test_a_gpu_that_leaves_takes_its_nodes_along_and_brings_them_back(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running(reconcile=True) as node:
        node.inventory.set(Inventory((G2,)))
        await trio.testing.wait_all_tasks_blocked()
        assert FILE not in disks.cdi, "its minor may be another GPU's soon"
        node.inventory.set(Inventory((G2, gpu(1, minor=7))))
        await trio.testing.wait_all_tasks_blocked()
        assert b"/dev/dri/renderD135" in disks.cdi[FILE]


async def test_a_deleted_cdi_file_is_back_within_a_period(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running(reconcile=True):
        await trio.sleep(1)
        disks.cdi.clear()
        await trio.sleep(601)
        assert FILE in disks.cdi


async def test_a_shorter_period_counts_at_once(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running(reconcile=True) as node:
        await trio.sleep(1)
        disks.cdi.clear()
        node.period_seconds.set(10.0)
        await trio.sleep(11)
        assert FILE in disks.cdi


async def test_a_claim_that_is_gone_is_released_after_ten_quiet_minutes(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    async with ClaimNode(ClaimServer(), G1, disks=disks).running(reconcile=True) as node:
        await trio.sleep(reconciler.ORPHAN_AFTER_SECONDS)
        assert FILE in disks.cdi, "the kubelet works from a checkpoint of its own: give it time"
        await trio.sleep(2 * reconciler.ORPHAN_AFTER_SECONDS)
        assert disks.cdi == {}
        assert [finding[:2] for finding in node.findings] == [("OrphanedClaim", "a")]


async def test_a_claim_that_lives_is_left_alone_and_so_is_one_nobody_can_say(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    server = ClaimServer(claim("a", G1.name))
    async with ClaimNode(server, G1, disks=disks).running(reconcile=True) as node:
        await trio.sleep(3 * reconciler.ORPHAN_AFTER_SECONDS)
        server.delete("a")
        server.failures = [Unavailable(0, "Unavailable", "refused")] * 10_000
        await trio.sleep(3 * reconciler.ORPHAN_AFTER_SECONDS)
        assert FILE in disks.cdi
        assert node.findings == []


async def test_a_consumer_that_is_no_pod_counts_as_one(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    document = claim("a", G1.name)
    document["status"]["reservedFor"] = [{"apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "g", "uid": "u"}]
    async with ClaimNode(ClaimServer(document), G1, disks=disks).running(reconcile=True):
        await trio.sleep(3 * reconciler.ORPHAN_AFTER_SECONDS)
        assert FILE in disks.cdi


async def test_claims_are_looked_up_at_a_bounded_rate(autojump_clock: trio.testing.MockClock) -> None:
    gpus = [gpu(number) for number in range(1, 9)]
    server = ClaimServer(*(claim(f"c{number}", g.name) for number, g in enumerate(gpus)))
    async with ClaimNode(server, *gpus).running(reconcile=True) as node:
        for number in range(8):
            await node.prepare(f"c{number}")
        before = server.gets
        await trio.sleep(3600)
        assert server.gets - before <= 6 * 8 + 8


async def test_claims_of_intels_driver_are_taken_over_once_and_keep_their_names(autojump_clock: trio.testing.MockClock) -> None:
    disks = Disks()
    device = {"requests": ["gpu"], "poolName": "node1", "deviceName": G1.name, "cdiDeviceIDs": [f"intel.com/gpu={G1.name}"]}
    disks.state[takeover.FILE] = json.dumps({"old": {"Devices": [device], "Err": None}}).encode()
    async with ClaimNode(ClaimServer(claim("old", G1.name), claim("new", G1.name)), G1, disks=disks).running(reconcile=True) as node:
        assert takeover.FILE not in disks.state and takeover.IMPORTED in disks.state
        answer = await node.prepare("old")
        assert not isinstance(answer, str)
        assert answer[0].cdi_ids == (f"intel.com/gpu={G1.name}",)
        names = [entry["name"] for entry in json.loads(disks.cdi[cdi.TAKEN_OVER_FILE])["devices"]]
        assert names == [G1.name]
        await node.unprepare("old")
        await trio.testing.wait_all_tasks_blocked()
        assert not disks.cdi
        assert not isinstance(await node.prepare("new"), str)
        assert list(disks.cdi) == [cdi.file_name(ClaimUid("new"))]


async def test_while_intels_cdi_file_stands_its_names_are_not_defined_twice() -> None:
    disks = Disks()
    disks.cdi[takeover.FOREIGN_CDI_FILE] = b"theirs"
    device = {"requests": ["gpu"], "poolName": "node1", "deviceName": G1.name, "cdiDeviceIDs": [f"intel.com/gpu={G1.name}"]}
    disks.state[takeover.FILE] = json.dumps({"old": {"Devices": [device], "Err": None}}).encode()
    async with ClaimNode(ClaimServer(), G1, disks=disks).running():
        assert disks.cdi == {takeover.FOREIGN_CDI_FILE: b"theirs"}


async def test_an_unreadable_checkpoint_of_intels_is_left_and_reported() -> None:
    disks = Disks()
    disks.state[takeover.FILE] = b'{"torn'
    async with ClaimNode(ClaimServer(), G1, disks=disks).running() as node:
        assert disks.state[takeover.FILE] == b'{"torn'
        assert [finding[0] for finding in node.findings] == ["TakeoverUnreadable"]


async def test_a_blocked_claim_has_its_blocker_looked_up_at_once(autojump_clock: trio.testing.MockClock) -> None:
    disks = await prepared()
    server = ClaimServer(claim("b", G1.name))
    async with ClaimNode(server, G1, disks=disks).running(reconcile=True) as node:
        before = server.gets
        assert isinstance(await node.prepare("b"), str)
        assert server.gets - before >= 2, "one for b, one for a, which stands in its way"
        assert msgspec.structs.asdict(node.journal.ledger.value)["claims"].keys() == {"a"}
