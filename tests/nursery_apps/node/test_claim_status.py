"""What the API server is asked for, and not asked for, to tell claims of their devices; in virtual time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra.claims import Stage
from dra.devices import Inventory
from dra.health.told import DeviceHealth, Level, Told
from dra.ledger import Ledger
from dra.names import ClaimUid, NodeName, PoolName
from dra.records import Grant, Kept, Record
from nursery_apps.latest import Latest
from nursery_apps.node import claim_status, served_api
from nursery_apps.node.claim_status import ClaimStatus
from nursery_apps.seams import ApiError, Conflict, Forbidden, Throttled, Unavailable
from tests.fakes.claim_node import gpu
from tests.fakes.kube_api import FakeKubeApi

GPUS = [gpu(number) for number in range(1, 9)]
OTHER = {"driver": "nic.example.com", "pool": "p", "device": "d", "conditions": []}
SETTLED = claim_status.SETTLE_SECONDS + 0.1


class World:
    def __init__(self, *, server_version: str = "v1.36.3", version: str = "v1") -> None:
        self.api = FakeKubeApi(server_version=server_version, versions=[version])
        self.served = Latest(served_api.choose(self.api.offer))
        self.ledger = Latest(Ledger())
        self.inventory = Latest(Inventory(tuple(GPUS)))
        self.health: Latest[Told] = Latest({})
        self.status = ClaimStatus(
            self.api,
            NodeName("node1"),
            served=self.served,
            ledger=self.ledger,
            inventory=self.inventory,
            health=self.health,
            clock=trio.current_time,
            random=lambda: 0.5,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.status.run)
            yield self
            nursery.cancel_scope.cancel()

    def allocate(self, uid: str, number: int = 1, *, node: str = "node1", devices: list[Any] | None = None) -> None:
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        result = {"request": "gpu", "driver": "gpu.intel.com", "pool": "node1", "device": GPUS[number - 1].name}
        allocation = {"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}}
        status = {"allocation": allocation} | ({"devices": devices} if devices else {})
        self.api.put("resourceclaims", {"metadata": {"name": uid, "uid": uid}, "spec": {}, "status": status}, namespace="ns")

    def grant(self, uid: str, number: int = 1, *, stage: Stage = Stage.GRANTED) -> None:
        card = GPUS[number - 1]
        grant = Grant(requests=("gpu",), pool=PoolName("node1"), device=card.name, bdf=card.bdf)
        record = Record(uid=ClaimUid(uid), namespace="ns", name=uid, grants=(grant,), stage=stage)
        self.ledger.set(self.ledger.value.apply([Kept(record)]))

    def prepare(self, uid: str, number: int = 1, **more: Any) -> None:
        self.allocate(uid, number, **more)
        self.grant(uid, number)

    def devices(self, uid: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.objects["resourceclaims", "ns", uid]["status"].get("devices", [])
        return found

    def ready(self, uid: str) -> list[tuple[str, str]]:
        return [(condition["status"], condition["message"]) for entry in self.devices(uid) for condition in entry["conditions"]]

    def calls(self) -> list[tuple[str, str]]:
        """(verb, claim) since the last time."""
        found = [(verb, name) for verb, plural, name in self.api.calls if plural == "resourceclaims"]
        self.api.calls.clear()
        return found


async def test_a_claim_is_told_and_told_again_when_its_device_falls_ill(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.prepare("a", devices=[OTHER])
        await trio.sleep(SETTLED)
        other, own = world.devices("a")
        assert other == OTHER
        assert own["data"]["pciAddress"] == GPUS[0].bdf
        assert world.ready("a") == [("True", "")]
        world.health.set({GPUS[0].name: DeviceHealth(Level.FAILED, "memory")})
        await trio.sleep(SETTLED)
        assert world.ready("a") == [("False", "memory")]
        world.health.set({GPUS[0].name: DeviceHealth(Level.OK)})
        await trio.sleep(SETTLED)
        assert world.ready("a") == [("True", "")]


async def test_nothing_is_asked_while_nothing_changes_for_a_claim(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.prepare("a", 1)
        world.prepare("b", 2)
        await trio.sleep(SETTLED)
        assert world.calls() == [("get", "a"), ("patch", "a"), ("get", "b"), ("patch", "b")]
        world.health.set({GPUS[1].name: DeviceHealth(Level.FAILED, "memory"), GPUS[2].name: DeviceHealth(Level.FAILED)})
        await trio.sleep(1000)
        assert world.calls() == [("get", "b"), ("patch", "b")]


async def test_after_a_restart_claims_are_read_and_not_written(autojump_clock: MockClock) -> None:
    world = World()
    world.prepare("a")
    for _ in range(2):
        async with world.running():
            await trio.sleep(SETTLED)
        world.status = ClaimStatus(
            world.api,
            NodeName("node1"),
            served=world.served,
            ledger=world.ledger,
            inventory=world.inventory,
            health=world.health,
            clock=trio.current_time,
            random=lambda: 0.5,
        )
    assert world.calls() == [("get", "a"), ("patch", "a"), ("get", "a")]


async def test_changes_in_quick_succession_are_one_write_and_a_short_claim_none(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.prepare("a", 1)
        world.prepare("short", 2)
        for number in range(20):
            world.health.set({GPUS[0].name: DeviceHealth(Level.FAILED, f"{number} errors")})
            await trio.sleep(0.01)
        world.grant("short", 2, stage=Stage.RELEASING)
        await trio.sleep(SETTLED)
        assert world.ready("a") == [("False", "19 errors")]
        assert world.calls() == [("get", "a"), ("patch", "a")]


async def test_a_claim_that_is_let_go_keeps_what_was_said(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.prepare("a")
        await trio.sleep(SETTLED)
        world.calls()
        world.grant("a", stage=Stage.RELEASING)
        world.health.set({GPUS[0].name: DeviceHealth(Level.FAILED)})
        await trio.sleep(1000)
        assert world.calls() == []
        assert world.ready("a") == [("True", "")]


@pytest.mark.parametrize(
    "error", [Unavailable(503, "ServiceUnavailable", "no"), Throttled(429, "TooManyRequests", "later", retry_after_seconds=7)]
)
@pytest.mark.parametrize("verb", ["get", "patch"])
async def test_an_api_server_in_trouble_is_asked_again_ever_less_often(verb: str, error: ApiError, autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.api.failures = [(verb, error)] * 3
        world.prepare("a")
        await trio.sleep(600)
        assert world.ready("a") == [("True", "")]
        assert [asked for asked, _ in world.calls()].count(verb) == 4


async def test_one_claim_that_is_refused_does_not_stand_in_the_way_of_others(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.api.failures = [("patch", Conflict(409, "Conflict", "somebody else applies this"))]
        world.prepare("a", 1)
        world.prepare("b", 2)
        world.grant("never-there", 3)
        await trio.sleep(600)
        assert (world.ready("a"), world.ready("b")) == ([], [("True", "")])
        assert world.calls() == [("get", "a"), ("patch", "a"), ("get", "b"), ("patch", "b"), ("get", "never-there")]


async def test_claims_that_the_api_server_keeps_refusing_hold_up_no_other(autojump_clock: MockClock) -> None:
    world = World()
    bad = [f"bad{number}" for number in range(claim_status.REFUSALS_MAX + 2)]

    def refuse(_plural: str, body: dict[str, Any]) -> None:
        if body["metadata"]["name"] in bad and "devices" in body.get("status", {}):
            raise Forbidden(403, "Forbidden", "denied by a webhook")

    async with world.running():
        for uid in (*bad, "good"):
            world.prepare(uid)
        world.api.on_store = refuse
        await trio.sleep(600)
        assert world.ready("good") == [("True", "")] and world.ready("bad0") == []


async def test_another_claim_of_the_name_is_left_alone(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.allocate("a")
        world.api.objects["resourceclaims", "ns", "a"]["metadata"]["uid"] = "another"
        world.grant("a")
        await trio.sleep(600)
        assert world.calls() == [("get", "a")]


async def test_a_claim_that_is_not_of_this_node_alone_is_left_alone_with_a_word(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    async with World().running() as world:
        world.prepare("a", node="node2")
        await trio.sleep(600)
        assert world.calls() == [("get", "a")]
    assert caplog.messages == ["claim ns/a is not of this node alone: its status says nothing of our devices"]


def _drop(plural: str, body: dict[str, Any]) -> None:
    body.get("status", {}).pop("devices", None)


async def test_an_api_server_without_the_field_is_given_up_with_one_word(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    async with World(server_version="v1.32.13", version="v1beta1").running() as world:
        world.api.on_store = _drop
        for number, uid in enumerate(("a", "b", "c"), start=1):
            world.prepare(uid, number)
            await trio.sleep(SETTLED)
        assert world.calls() == [("get", "a"), ("patch", "a")]
        [word] = caplog.messages
        assert word.startswith("claims do not say what they were given: the API server ") and "DRAResourceClaimDeviceStatus" in word
        world.api.on_store = lambda plural, body: None
        world.api.offer = FakeKubeApi(server_version="v1.37.2").offer
        world.served.set(served_api.choose(world.api.offer))
        await trio.sleep(SETTLED)
        assert world.ready("a") == world.ready("b") == world.ready("c") == [("True", "")]


async def test_rights_that_are_missing_are_said_once_and_claims_are_told_when_they_are_given(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    async with World().running() as world:
        world.api.failures = [("patch", Forbidden(403, "Forbidden", "changing status.devices requires more"))] * 60
        world.prepare("a")
        await trio.sleep(1000)
        assert len(world.calls()) <= 60 and len(caplog.messages) == 1, "about once a minute, without a word each time"
        world.api.failures = []
        await trio.sleep(61)
        assert world.ready("a") == [("True", "")]


async def test_a_claim_that_was_taken_over_by_its_uid_alone_is_not_looked_for(autojump_clock: MockClock) -> None:
    async with World().running() as world:
        world.allocate("a")
        card = GPUS[0]
        grant = Grant(requests=(), pool=PoolName("node1"), device=card.name, bdf=card.bdf)
        taken_over = Record(uid=ClaimUid("a"), namespace="", name="", grants=(grant,), origin="checkpoint")
        world.ledger.set(world.ledger.value.apply([Kept(taken_over)]))
        await trio.sleep(100)
        assert world.api.calls == []
        world.grant("a")
        await trio.sleep(100)
        assert world.devices("a")


async def test_kubernetes_1_31_is_not_asked(autojump_clock: MockClock) -> None:
    async with World(server_version="v1.31.14", version="v1alpha3").running() as world:
        world.prepare("a")
        await trio.sleep(600)
        assert world.calls() == []
