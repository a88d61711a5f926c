"""What the kubelet sees of prepare and unprepare: every obligation of its contract, in virtual time."""

from __future__ import annotations

import errno
import json
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dra import cdi
from dra.devices import State
from dra.names import ClaimUid
from nursery_apps.node.claim_desk import PreparedDevice
from nursery_apps.seams import Forbidden, Throttled, Unavailable
from tests.fakes.claim_node import ClaimNode, Disks, gpu, ref
from tests.fakes.claim_server import ClaimServer, claim

G1, G2 = gpu(1), gpu(2)


def device(uid: str, which: Any = G1, request: str = "gpu") -> PreparedDevice:
    return PreparedDevice((request,), "node1", which.name, (f"intel.com/gpu={uid}-{which.name}",))


def nodes_in(disks: Disks, uid: str) -> list[str]:
    document = json.loads(disks.cdi[cdi.file_name(ClaimUid(uid))])
    return [node["path"] for entry in document["devices"] for node in entry["containerEdits"]["deviceNodes"]]


async def test_prepare_answers_with_the_device_and_its_file_is_there() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, G2).running() as node:
        assert await node.prepare("a") == (device("a"),)
        assert nodes_in(node.disks, "a") == ["/dev/dri/card1", "/dev/dri/renderD129"]


async def test_repeating_prepare_answers_the_same_and_writes_nothing() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1).running() as node:
        first = await node.prepare("a")
        before = dict(node.disks.state), dict(node.disks.cdi)
        assert await node.prepare("a") == first
        assert (node.disks.state, node.disks.cdi) == before


async def test_repeating_prepare_brings_a_deleted_cdi_file_back() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1).running() as node:
        first = await node.prepare("a")
        node.disks.cdi.clear()
        assert await node.prepare("a") == first
        assert nodes_in(node.disks, "a") == ["/dev/dri/card1", "/dev/dri/renderD129"]


async def test_one_bad_claim_of_a_batch_fails_alone() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1).running() as node:
        replies = await node.desk.prepare([ref("a"), ref("missing")], 45)
    assert replies[ClaimUid("a")] == (device("a"),)
    assert replies[ClaimUid("missing")] == "claim default/missing does not exist (deleted?)"


async def test_a_claim_replaced_under_its_name_is_told_apart_by_uid() -> None:
    async with ClaimNode(ClaimServer(claim("new", G1.name, name="c")), G1).running() as node:
        replies = await node.desk.prepare([ref("old", "c")], 45)
    assert replies == {"old": "claim default/c was replaced: asked for UID old, the API server has new"}


async def test_results_of_other_drivers_are_left_to_them() -> None:
    document = claim("a", G1.name)
    document["status"]["allocation"]["devices"]["results"].append(
        {"request": "nic", "driver": "nic.example.com", "pool": "p", "device": "eth0"}
    )
    async with ClaimNode(ClaimServer(document), G1).running() as node:
        assert await node.prepare("a") == (device("a"),)


async def test_a_prioritized_list_is_answered_with_the_base_request() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name, request="gpu/large")), G1).running() as node:
        assert await node.prepare("a") == (device("a"),)


async def test_several_devices_of_one_claim() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name, G2.name)), G1, G2).running() as node:
        assert await node.prepare("a") == (device("a"), device("a", G2, "gpu-1"))
        assert len(json.loads(node.disks.cdi[cdi.file_name(ClaimUid("a"))])["devices"]) == 2


async def test_unprepare_leaves_nothing() -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1).running() as node:
        await node.prepare("a")
        assert await node.unprepare("a") is None
        assert node.disks.cdi == {}
        assert dict(node.journal.ledger.value.claims) == {}


@pytest.mark.parametrize("times", [1, 2])
async def test_unprepare_of_what_never_was_succeeds(times: int) -> None:
    async with ClaimNode(ClaimServer()).running() as node:
        for _ in range(times):
            assert await node.unprepare("never") is None
        assert node.disks.state == {}


async def test_unprepare_asks_nobody() -> None:
    server = ClaimServer(claim("a", G1.name))
    async with ClaimNode(server, G1).running() as node:
        await node.prepare("a")
        asked = server.gets, server.lists
        server.failures = [Unavailable(0, "Unavailable", "connection refused")] * 99
        assert await node.unprepare("a") is None
        assert (server.gets, server.lists) == asked


async def test_a_device_whose_unprepare_is_on_its_way_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("old", G1.name), claim("new", G1.name)), G1).running() as node:
        await node.prepare("old")
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def prepare_new() -> None:
                answers.append(await node.prepare("new"))

            nursery.start_soon(prepare_new)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert answers == []
            assert await node.unprepare("old") is None
        assert answers == [(device("new"),)]


async def test_a_device_that_stays_held_is_an_error_that_names_the_holder(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("old", G1.name), claim("new", G1.name)), G1).running() as node:
        await node.prepare("old")
        answer = await node.prepare("new")
        assert answer == f"not done within 35 s, waiting for: {G1.name} is held by claim old, which is not unprepared yet"
        assert ClaimUid("new") not in node.journal.ledger.value.claims


async def test_an_admin_sees_a_device_that_is_in_use_and_stands_in_nobodys_way() -> None:
    server = ClaimServer(claim("user", G1.name), claim("admin", G1.name, adminAccess=True), claim("next", G1.name))
    async with ClaimNode(server, G1).running() as node:
        assert await node.prepare("user") == (device("user"),)
        assert await node.prepare("admin") == (device("admin"),)
        await node.unprepare("user")
        assert await node.prepare("next") == (device("next"),)


async def test_admin_access_of_kubernetes_1_31_is_found_in_the_request() -> None:
    document = claim("admin", G1.name)
    document["spec"]["devices"]["requests"][0]["adminAccess"] = True
    async with ClaimNode(ClaimServer(claim("user", G1.name), document), G1).running() as node:
        await node.prepare("user")
        assert await node.prepare("admin") == (device("admin"),)


async def test_shares_of_one_device_are_prepared_side_by_side() -> None:
    server = ClaimServer(claim("a", G1.name, shareID="s1"), claim("b", G1.name, shareID="s2"))
    async with ClaimNode(server, G1).running() as node:
        assert await node.prepare("a") == (msgspec.structs.replace(device("a"), share_id="s1"),)
        assert await node.prepare("b") == (msgspec.structs.replace(device("b"), share_id="s2"),)


async def test_bad_configuration_is_refused_with_one_line_and_nothing_is_held() -> None:
    config = [{"source": "FromClaim", "opaque": {"driver": "gpu.intel.com", "parameters": {"kind": "Nope"}}}]
    async with ClaimNode(ClaimServer(claim("a", G1.name, config=config)), G1).running() as node:
        answer = await node.prepare("a")
        assert isinstance(answer, str) and "want gpu.intel.com/v1alpha1 GpuConfig" in answer
        assert node.disks.state == {}


async def test_a_late_gpu_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name))).running() as node, trio.open_nursery() as nursery:

        async def plug() -> None:
            await trio.sleep(7)
            node.inventory.set(msgspec.structs.replace(node.inventory.value, gpus=(G1,)))

        nursery.start_soon(plug)
        assert await node.prepare("a") == (device("a"),)


async def test_a_gpu_that_never_comes_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name))).running() as node:
        assert await node.prepare("a") == f"not done within 35 s, waiting for: {G1.name} is not on this node (unplugged?)"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.WEDGED, "is wedged: rebind its driver or reset it"),
        (State.SURVIVABILITY, "firmware must be flashed"),
        (State.PASSTHROUGH, "belongs to a virtual machine"),
    ],
)
async def test_a_gpu_that_cannot_be_given_is_refused_at_once(state: State, words: str) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), gpu(1, state=state)).running() as node:
        answer = await node.prepare("a")
        assert isinstance(answer, str) and words in answer


async def test_hiccups_of_the_api_server_are_waited_out(autojump_clock: trio.testing.MockClock) -> None:
    server = ClaimServer(claim("a", G1.name))
    server.failures = [Unavailable(0, "Unavailable", "refused"), Throttled(429, "TooManyRequests", "later", retry_after_seconds=3)]
    async with ClaimNode(server, G1).running() as node:
        start = trio.current_time()
        assert await node.prepare("a") == (device("a"),)
        assert trio.current_time() - start >= 3


async def test_missing_permission_is_final_and_said() -> None:
    server = ClaimServer(claim("a", G1.name))
    server.failures = [Forbidden(403, "Forbidden", "cannot get resourceclaims")]
    async with ClaimNode(server, G1).running() as node:
        assert "cannot get resourceclaims" in str(await node.prepare("a"))


async def test_a_prepared_claim_is_answered_through_an_outage(autojump_clock: trio.testing.MockClock) -> None:
    server = ClaimServer(claim("a", G1.name))
    async with ClaimNode(server, G1).running() as node:
        first = await node.prepare("a")
        server.failures = [Unavailable(0, "Unavailable", "refused")] * 99
        assert await node.prepare("a") == first


async def test_a_reallocated_claim_gets_its_new_device_and_lets_go_of_the_old_one() -> None:
    server = ClaimServer(claim("a", G1.name), claim("b", G1.name))
    async with ClaimNode(server, G1, G2).running() as node:
        await node.prepare("a")
        server.put(claim("a", G2.name))
        assert await node.prepare("a") == (device("a", G2),)
        assert await node.prepare("b") == (device("b"),)
        assert nodes_in(node.disks, "a") == ["/dev/dri/card2", "/dev/dri/renderD130"]


async def test_many_claims_of_a_namespace_are_read_by_one_list() -> None:
    gpus = [gpu(number) for number in range(1, 17)]
    server = ClaimServer(*(claim(f"c{g.bdf[5:7]}", g.name) for g in gpus))
    async with ClaimNode(server, *gpus).running() as node:
        replies = await node.desk.prepare([ref(f"c{g.bdf[5:7]}") for g in gpus], 45)
    assert all(not isinstance(reply, str) for reply in replies.values())
    assert (server.lists, server.gets) == (1, 0)


async def test_many_claims_share_journal_writes() -> None:
    gpus = [gpu(number) for number in range(1, 33)]
    server = ClaimServer(*(claim(f"c{g.bdf[5:7]}", g.name) for g in gpus))
    node = ClaimNode(server, *gpus)
    async with node.running():
        before = node.power.points
        await node.desk.prepare([ref(f"c{g.bdf[5:7]}") for g in gpus], 45)
        steps = (node.power.points - before) // node.power.POINTS_A_STEP
    assert steps < 32 + 8, "32 CDI files and a handful of group commits"


async def test_an_unprepare_cuts_off_the_prepare_before_it(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name))).running() as node, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def prepare() -> None:
            answers.append(await node.prepare("a"))

        nursery.start_soon(prepare)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await node.unprepare("a") is None
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers == ["the claim is being unprepared"]
        assert node.desk.busy() == 0


async def test_the_work_of_a_call_that_was_cut_off_is_found_by_the_next(autojump_clock: trio.testing.MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name))).running() as node:
        answer = await node.prepare("a", deadline_seconds=3)
        assert answer == f"prepare goes on, ask again; it waits for: {G1.name} is not on this node (unplugged?)"
        node.inventory.set(msgspec.structs.replace(node.inventory.value, gpus=(G1,)))
        assert await node.prepare("a") == (device("a"),)


async def test_equal_calls_at_once_do_the_work_once() -> None:
    server = ClaimServer(claim("a", G1.name))
    async with ClaimNode(server, G1).running() as node:
        answers: list[Any] = []

        async def prepare() -> None:
            answers.append(await node.prepare("a"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(prepare)
        assert answers == [(device("a"),)] * 5
        assert server.gets == 1


async def test_a_full_disk_fails_the_claim_with_words_and_nothing_half_done() -> None:
    node = ClaimNode(ClaimServer(claim("a", G1.name)), G1)
    async with node.running():
        node.state.fail = lambda operation, name: errno.ENOSPC if operation == "append" else None
        answer = await node.prepare("a")
        assert isinstance(answer, str) and answer.startswith("cannot write the journal")
        assert node.disks.cdi == {}
        node.state.fail = lambda operation, name: None
        assert await node.prepare("a") == (device("a"),)


async def test_an_unwritable_cdi_directory_is_named_and_unprepare_cleans_up() -> None:
    node = ClaimNode(ClaimServer(claim("a", G1.name)), G1)
    async with node.running():
        node.cdi.fail = lambda operation, name: errno.EROFS if operation == "replace" else None
        assert "make the directory writable" in str(await node.prepare("a"))
        assert await node.unprepare("a") is None
        assert dict(node.journal.ledger.value.claims) == {}
