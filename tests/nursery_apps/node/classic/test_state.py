"""The node's own part of its GpuAllocationState: written, kept, and no key of anybody else touched."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import trio
from trio.testing import MockClock

from dra.classic.inventory import AllocatableGpu, DeviceType
from dra.classic.names import DeviceUid
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.node.classic.state import Devices, StatePublisher
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import Forbidden, Unavailable
from tests.fakes.kube_api import FakeKubeApi, until

SPACE = "intel-gpu-resource-driver"


def device(number: int, **changes: Any) -> AllocatableGpu:
    fields: dict[str, Any] = {
        "uid": f"0000:{number:02x}:00.0-0x56c0",
        "memory": 14248,
        "millicores": 1000,
        "model": "0x56c0",
        "type": DeviceType.GPU,
        "parentuid": "",
        "maxvfs": 31,
        "vfindex": 0,
        "ecc": True,
    }
    return AllocatableGpu(**fields | changes)


def devices(*found: AllocatableGpu) -> Devices:
    return {DeviceUid(one.uid): one for one in found}


class Scene:
    def __init__(self) -> None:
        self.kube = FakeKubeApi(versions=("v1alpha2",))
        self.node: Latest[OwnNode | None] = Latest(OwnNode("node-uid"))
        self.desired: Latest[Devices | None] = Latest(devices(device(1)))
        self.taken: list[dict[str, Any]] = []

    async def _take_over(self, stored: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if claims := (stored.get("spec") or {}).get("preparedClaims"):
            self.taken.append(claims)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StatePublisher]:
        publisher = StatePublisher(
            self.kube,
            NodeName("n1"),
            SPACE,
            node=self.node,
            desired=self.desired,
            take_over=self._take_over,
            random=lambda: 0.5,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(publisher.run)
            yield publisher
            nursery.cancel_scope.cancel()

    @property
    def stored(self) -> dict[str, Any]:
        return self.kube.objects.get(("gpuallocationstates", SPACE, "n1"), {})

    @property
    def offered(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.stored.get("spec") or {}).get("allocatableDevices") or {}
        return found

    def put(self, **body: Any) -> None:
        self.kube.put("gpuallocationstates", {"metadata": {"name": "n1"}} | body, namespace=SPACE)

    @property
    def writes(self) -> int:
        return sum(verb in ("create", "patch") for verb, plural, _ in self.kube.calls if plural == "gpuallocationstates")


async def test_it_is_created_for_the_node_and_says_ready(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        assert scene.stored["status"] == "Ready" and list(scene.offered) == ["0000:01:00.0-0x56c0"]
        assert scene.stored["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid", "controller": True}
        ]
        assert publisher.status.value.devices == 1 and publisher.status.value.error is None
        await trio.sleep(3600)
        assert scene.writes == 1
    assert scene.stored["status"] == "NotReady"


async def test_hardware_that_comes_goes_and_changes_is_told_key_by_key(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        scene.desired.set(devices(device(2), device(3)))
        await until(lambda: sorted(scene.offered) == ["0000:02:00.0-0x56c0", "0000:03:00.0-0x56c0"])
        scene.desired.set(devices(device(2, maxvfs=0), device(3)))
        await until(lambda: scene.offered["0000:02:00.0-0x56c0"]["maxvfs"] == 0)
        scene.desired.set(devices())
        await until(lambda: scene.offered == {})


async def test_taints_and_claims_of_others_are_never_touched(autojump_clock: MockClock) -> None:
    scene = Scene()
    spec = {
        "taintedDevices": {"0000:01:00.0-0x56c0": {"reasons": {"hot": True}}},
        "allocatedClaims": {"u": {"gpus": []}},
        "allocatableDevices": {"0000:09:00.0-0x56c0": {"uid": "gone"}},
    }
    scene.put(spec=spec, status="NotReady")
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        assert scene.stored["status"] == "Ready" and list(scene.offered) == ["0000:01:00.0-0x56c0"]
    assert scene.stored["spec"]["taintedDevices"] == spec["taintedDevices"]
    assert scene.stored["spec"]["allocatedClaims"] == spec["allocatedClaims"]


async def test_what_somebody_deletes_or_alters_is_restored(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        scene.kube.remove("gpuallocationstates", "n1", namespace=SPACE)
        await until(lambda: scene.offered != {})
        scene.put(spec={"allocatableDevices": {"0000:01:00.0-0x56c0": {"uid": "0000:01:00.0-0x56c0", "maxvfs": 62}}}, status="Ready")
        await until(lambda: scene.offered["0000:01:00.0-0x56c0"].get("memory") == 14248)
        assert scene.offered["0000:01:00.0-0x56c0"]["maxvfs"] == 31
        scene.put(spec=scene.stored["spec"], status="NotReady")
        await until(lambda: scene.stored["status"] == "Ready")
        assert "ownerReferences" in scene.stored["metadata"]


async def test_whoever_fights_for_our_keys_is_answered_ever_more_slowly(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        before = scene.writes
        with trio.move_on_after(300):
            while True:
                scene.put(spec=scene.stored["spec"], status="NotReady")
                await until(lambda: scene.stored["status"] == "Ready")
        assert scene.writes - before < 30


async def test_an_api_server_that_is_away_or_refuses_is_asked_again(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.kube.failures = [("list", Unavailable(0, "Down", "down")), ("create", Forbidden(403, "Forbidden", "no rights"))]
    async with scene.running() as publisher:
        await until(lambda: "no rights" in (publisher.status.value.error or ""))
        await until(lambda: publisher.status.value.in_sync)


async def test_nothing_is_said_before_the_hardware_was_read(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.desired.set(None)
    scene.put(spec={"allocatableDevices": {"x": {}}}, status="Ready")
    async with scene.running():
        await trio.sleep(60)
        assert list(scene.offered) == ["x"]


async def test_a_node_that_was_made_anew_owns_it(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        scene.node.set(OwnNode("second-uid"))
        await until(lambda: [one["uid"] for one in scene.stored["metadata"]["ownerReferences"]] == ["second-uid"])


async def test_an_older_definition_of_the_kind_is_lived_with(autojump_clock: MockClock) -> None:
    scene = Scene()

    def prune(plural: str, body: dict[str, Any]) -> None:
        for one in body["spec"].get("allocatableDevices", {}).values():
            for key in ("name", "profile", "tiles", "quotas", "bulkQuota"):
                one.pop(key, None)

    store = scene.kube._store

    def pruning(kind: str, key: Any, body: dict[str, Any]) -> dict[str, Any]:
        prune(key[0], body)
        return store(kind, key, body)

    scene.kube._store = pruning  # type: ignore[method-assign]
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
        before = scene.writes
        await trio.sleep(3600)
        assert scene.writes == before <= 3 and publisher.status.value.dropped == 1


async def test_what_the_original_had_prepared_is_taken_over_and_then_taken_out(autojump_clock: MockClock) -> None:
    scene = Scene()
    claims = {"u1": [{"uid": "0000:01:00.0-0x56c0", "type": "gpu"}]}
    scene.put(spec={"preparedClaims": claims, "allocatedClaims": {"u1": {}}}, status="Ready")
    async with scene.running() as publisher:
        await until(lambda: publisher.status.value.in_sync)
    assert scene.taken == [claims]
    assert "preparedClaims" not in scene.stored["spec"] and "allocatedClaims" in scene.stored["spec"]
