"""Claims that kubelets up to 1.30 forget are let go by the node itself, and only those."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from dra import cdi, takeover
from dra.classic.handle import Part
from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.names import BootId, ClaimUid
from nursery_apps.node import reconciler
from tests.fakes import classic_node, machines
from tests.fakes.claim_node import POOL, ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim
from tests.fakes.classic_node import ClassicNode, text, whole
from tests.fakes.kube_api import FakeKubeApi, until

G1, G2 = gpu(1), gpu(2)
CARD = f"{G1.bdf}-{G1.device}"
WHOLE = text(whole(CARD))
LONG = 2 * reconciler.ORPHAN_AFTER_SECONDS + 60


def server(*uids: str, **fields: bool) -> FakeKubeApi:
    made = classic_node.api()
    for uid in uids:
        made.put("resourceclaims", classic_node.claim(uid, WHOLE, **fields), namespace="default")
    return made


async def prepared(uid: str = "a") -> Disks:
    disks = Disks()
    async with ClassicNode({uid: WHOLE}, G1, disks=disks).running() as node:
        await node.cdi_ids(uid)
    return disks


def held(node: ClaimNode) -> set[str]:
    return set(node.journal.ledger.value.claims)


@pytest.mark.parametrize("case", ["deleted", "replaced", "deallocated", "reserved for nobody", "on another node"])
async def test_a_claim_that_is_over_is_released_after_ten_quiet_minutes(case: str, autojump_clock: MockClock) -> None:
    api = server() if case == "deleted" else server("a", reserved=case != "reserved for nobody")
    stored = api.objects.get(("resourceclaims", "default", "a"), {})
    match case:
        case "replaced":
            stored["metadata"]["uid"] = "another"
        case "deallocated":
            del stored["status"]["allocation"]
        case "on another node":
            stored["status"]["allocation"]["resourceHandles"][0]["data"] = text(whole(CARD), node="n9")
    async with ClassicNode({"a": WHOLE}, G1, server=api, disks=await prepared()).running(reconcile=True) as node:
        await trio.sleep(reconciler.ORPHAN_AFTER_SECONDS)
        assert held(node) == {"a"}, "its containers may still run"
        await trio.sleep(LONG)
        assert held(node) == set() and node.disks.cdi == {}


async def test_a_claim_that_is_in_use_is_kept(autojump_clock: MockClock) -> None:
    async with ClassicNode({"a": WHOLE}, G1, server=server("a"), disks=await prepared()).running(reconcile=True) as node:
        await trio.sleep(3 * LONG)
        assert held(node) == {"a"} and node.findings == []


async def test_an_api_server_that_was_upgraded_first_ends_no_pod(autojump_clock: MockClock) -> None:
    """It answers 404 for every claim, since the whole version is gone; the kubelet and its pods are there yet."""
    api = FakeKubeApi(server_version="v1.32.0", versions=("v1beta1",))
    async with ClassicNode({"a": WHOLE}, G1, server=api, disks=await prepared()).running(reconcile=True) as node:
        await trio.sleep(3 * LONG)
        assert held(node) == {"a"}


async def test_a_forgotten_claim_that_is_in_the_way_is_looked_up_at_once(autojump_clock: MockClock) -> None:
    api = server("b")
    async with ClassicNode({"b": WHOLE}, G1, server=api, disks=await prepared()).running(reconcile=True) as node:
        assert "held by claim a" in str(await node.prepare("b"))
        assert ("get", "resourceclaims", "a") in api.calls


async def test_after_the_cluster_was_upgraded_classic_claims_are_let_go_as_soon_as_they_are_gone(autojump_clock: MockClock) -> None:
    async with ClaimNode(ClaimServer(claim("new", G1.name)), G1, G2, disks=await prepared()).running(reconcile=True) as node:
        assert next(iter(node.journal.ledger.value.records())).driver == CLASSIC_DRIVER_NAME
        await until(lambda: held(node) == set(), seconds=30)
        assert not isinstance(await node.prepare("new"), str)


async def test_after_a_downgrade_structured_claims_are_let_go_too(autojump_clock: MockClock) -> None:
    disks = Disks()
    async with ClaimNode(ClaimServer(claim("old", G1.name)), G1, disks=disks).running() as node:
        await node.prepare("old")
    async with ClassicNode({"a": WHOLE}, G1, disks=disks, server=server("a")).running(reconcile=True) as classic:
        await until(lambda: held(classic) == set(), seconds=30)
        await classic.cdi_ids("a")


async def test_claims_of_the_original_driver_are_taken_over_from_its_file(autojump_clock: MockClock) -> None:
    disks, kernel = Disks(), machines.kernel("server-8x-flex170")
    flex, cut = "0000:4d:00.0-0x56c0", "0000:2c:00.0-0x56c0"
    vf = {"uid": "0000:2c:00.1-0x56c0", "type": "vf", "parentuid": cut, "memory": 1, "millicores": 250}
    records = {"a": [{"uid": flex, "type": "gpu", "memory": 16000, "millicores": 1000}], "v": [vf]}
    disks.state[takeover.FILE] = json.dumps(records).encode()
    handles = {"a": text(whole(flex)), "b": text(whole(flex)), "c": text(Part(uid="0000:2c:00.1-0x56c0", parent=cut, index=1))}
    async with ClassicNode(handles, kernel=kernel, disks=disks).running(reconcile=True) as node:
        assert held(node) == {"a", "v"} and takeover.IMPORTED in disks.state
        assert await node.cdi_ids("a") == (f"intel.com/gpu={flex}",), "running pods know it by this name"
        names = [entry["name"] for entry in json.loads(disks.cdi[cdi.TAKEN_OVER_FILE])["devices"]]
        assert names == ["0000:2c:00.1-0x56c0", flex]
        assert "held by claim a" in str(await node.prepare("b")) and "held by claim v" in str(await node.prepare("c"))
        assert await node.unprepare("a") is None and await node.unprepare("v") is None
        await node.cdi_ids("b")
        await node.cdi_ids("c")
        assert classic_node.count(kernel, "0000:2c:00.0") == 4


async def test_claims_taken_over_that_are_known_by_uid_alone_are_let_go_too(autojump_clock: MockClock) -> None:
    disks = Disks()
    disks.state[takeover.FILE] = json.dumps({uid: [{"uid": CARD, "type": "gpu", "millicores": 10}] for uid in ("gone", "kept")}).encode()
    api = server("kept")
    async with ClassicNode({}, G1, disks=disks, server=api).running(reconcile=True) as node:
        assert all(grant.share_id for record in node.journal.ledger.value.records() for grant in record.grants), "a shared GPU"
        await trio.sleep(2 * LONG)
        assert held(node) == {"kept"}
        await node.unprepare("kept")
        await until(lambda: node.disks.cdi == {}, seconds=5)


async def test_claims_of_the_original_driver_that_come_after_the_start_have_their_names(autojump_clock: MockClock) -> None:
    disks = Disks()
    async with ClassicNode({}, G1, disks=disks, server=server("a")).running(reconcile=True) as node:
        gpus = {"a": [{"uid": CARD, "type": "gpu"}]}
        imported = takeover.imported(gpus, takeover.STATE, pool=POOL, boot_id=BootId("boot-1"), driver=node.driver)
        await node.journal.commit(imported.adopt)
        await until(lambda: cdi.TAKEN_OVER_FILE in disks.cdi, seconds=5)
        await node.journal.commit(imported.adopt)
        assert node.journal.ledger.value.get(ClaimUid("a")) is not None
