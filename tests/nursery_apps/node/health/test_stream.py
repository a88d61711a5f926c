"""What a kubelet that watches the devices' health is told: in virtual time where it stands, and through the C core's client."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dra.health.told import DeviceHealth, Level, Told
from dra.names import DeviceName, PoolName
from dra.wire import dra_health_pb2 as wire
from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.latest import Latest
from nursery_apps.node import kubelet_services
from nursery_apps.node.health import stream
from nursery_apps.node.health.stream import HealthStream
from tools.simcluster import plugin_versions

A, B = DeviceName("0000-03-00-0-0x56c0"), DeviceName("0000-04-00-0-0x56c0")
FINE, HOT = DeviceHealth(Level.OK), DeviceHealth(Level.FAILED, "memory: 3 rows are bad", 100.0)
POOL = PoolName("node1")


def told(answer: wire.NodeWatchResourcesResponse) -> dict[str, tuple[str, str]]:
    return {each.device.device_name: (wire.HealthStatus.Name(each.health), each.message) for each in answer.devices}


class Watcher:
    """A call of the route's, and what it was sent at which time."""

    def __init__(self, health: Latest[Told]) -> None:
        self.route = HealthStream(health, POOL, trio.current_time).routes()[0]
        self.got: list[tuple[float, dict[str, tuple[str, str]]]] = []
        self.reads = trio.Semaphore(10**9)

    async def run(self) -> None:
        assert isinstance(self.route, rpc.ServerStream)
        began = trio.current_time()

        async def send(answer: wire.NodeWatchResourcesResponse) -> None:
            self.got.append((trio.current_time() - began, told(answer)))
            await self.reads.acquire()

        await self.route.call(wire.NodeWatchResourcesRequest(), rpc.Call(self.route.path, float("inf"), {}), send)


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        (DeviceHealth(Level.OK), "HEALTHY", ""),
        (DeviceHealth(Level.DEGRADED, "link: 8 of 16 lanes"), "HEALTHY", "link: 8 of 16 lanes"),
        (HOT, "UNHEALTHY", HOT.text),
        (DeviceHealth(Level.UNKNOWN, "its sysfs hangs"), "UNKNOWN", "its sysfs hangs"),
        (DeviceHealth(Level.FAILED, "x" * 1023 + "é"), "UNHEALTHY", "x" * 1023),
        (DeviceHealth(Level.FAILED, "é" * 512), "UNHEALTHY", "é" * 512),
    ],
)
async def test_how_a_device_is_in_the_kubelets_words(how: DeviceHealth, status: str, message: str, mock_clock: MockClock) -> None:
    watcher = Watcher(Latest({A: how}))
    with trio.move_on_after(0):
        await watcher.run()
    assert watcher.got == [(0.0, {A: (status, message)})]


async def test_everything_first_then_each_change_at_once_and_signs_of_life(autojump_clock: MockClock) -> None:
    health = Latest[Told]({A: FINE, B: FINE})
    watcher = Watcher(health)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await trio.sleep(7)
        health.set({A: FINE, B: HOT})
        await trio.sleep(6)
        health.set({A: FINE})
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    fine, ill = {A: ("HEALTHY", ""), B: ("HEALTHY", "")}, {A: ("HEALTHY", ""), B: ("UNHEALTHY", HOT.text)}
    assert watcher.got == [(0, fine), (5, fine), (7, ill), (12, ill), (13, {A: ("HEALTHY", "")})]


async def test_what_is_not_watched_yet_is_not_told(autojump_clock: MockClock) -> None:
    health = Latest[Told]({})
    watcher = Watcher(health)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await trio.sleep(1)
        health.set({A: FINE})
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert watcher.got == [(0, {}), (1, {A: ("HEALTHY", "")})]


async def test_a_slow_reader_gets_the_newest_and_holds_up_nobody(autojump_clock: MockClock) -> None:
    health = Latest[Told]({})
    slow, quick = Watcher(health), Watcher(health)
    slow.reads = trio.Semaphore(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.run)
        nursery.start_soon(quick.run)
        for number in range(3):
            await trio.sleep(1)
            health.set({A: DeviceHealth(Level.FAILED, f"{number} errors")})
        await trio.sleep(0.5)
        slow.reads.release()
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert [text for _, state in quick.got for _, text in state.values()] == ["0 errors", "1 errors", "2 errors"]
    assert slow.got == [(0, {}), (3.5, {A: ("UNHEALTHY", "2 errors")})]


async def test_signs_of_life_leave_room_for_late_ones_within_a_third_of_the_time_out() -> None:
    assert stream.HEARTBEAT_SECONDS <= stream.TIMEOUT_SECONDS / 3 / 1.5


async def test_a_foreign_client_watches_both_services_until_the_server_stops() -> None:
    health = Latest[Told]({A: HOT})
    # device{pool_name 1, device_name 2} 1, health 2, last_updated_time 3, health_check_timeout_seconds 4, message 5
    device = b"\x0a\x05node1" + bytes([0x12, len(A)]) + A.encode()
    entry = bytes([0x0A, len(device)]) + device + b"\x10\x02\x18\xd2\x09\x20\x1e" + bytes([0x2A, len(HOT.text)]) + HOT.text.encode()
    with tempfile.TemporaryDirectory(prefix="dra") as directory, trio.fail_after(10):
        path = f"{directory}/dra.sock"
        async with trio.open_nursery() as nursery:
            server = RpcServer(grace_seconds=1000)
            routes = HealthStream(health, POOL, lambda: 1234.5).routes()
            await nursery.start(partial(server.serve_unix, routes, path))
            with grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                calls = [
                    channel.unary_stream(f"/{service}/NodeWatchResources")(b"")
                    for service in ("v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")
                ]
                for call in calls:
                    assert await thread(next, call) == bytes([0x0A, len(entry)]) + entry
                health.set({A: FINE})
                for call in calls:
                    assert told(wire.NodeWatchResourcesResponse.FromString(await thread(next, call))) == {A: ("HEALTHY", "")}
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    for call in calls:
                        assert await thread(call.code) is grpc.StatusCode.UNAVAILABLE


async def thread(act: Callable[..., Any], *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(partial(act, *arguments))


ANNOUNCED = [*kubelet_services.SUPPORTED_VERSIONS, *stream.SERVICES]


@pytest.mark.parametrize("minor", range(28, 38))
def test_kubelets_choose_what_they_chose_without_the_health_services(minor: int) -> None:
    assert plugin_versions.service(minor, ANNOUNCED) == plugin_versions.service(minor, list(kubelet_services.SUPPORTED_VERSIONS))
    assert plugin_versions.highest(ANNOUNCED) == (1, 0, 0)
