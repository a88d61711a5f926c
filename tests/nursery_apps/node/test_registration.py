from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dra import backoff, kubelet_sockets
from dra.wire import pluginregistration_pb2 as wire
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.latest import Latest
from nursery_apps.node import kubelet_services, registration
from nursery_apps.node.registration import PluginInfo, Registration, Standing
from tests.fakes.kubelet import FakeKubelet
from tests.fakes.rpc_listener import MemoryListener

REGISTRY, PLUGIN = "/k/plugins_registry", "/k/plugins/gpu.intel.com"
REGISTRAR = f"{REGISTRY}/gpu.intel.com-reg.sock"
INFO = PluginInfo("gpu.intel.com", f"{PLUGIN}/dra.sock", kubelet_services.SUPPORTED_VERSIONS)
GET_INFO, NOTIFY = (f"/pluginregistration.Registration/{name}" for name in ("GetInfo", "NotifyRegistrationStatus"))


class Story:
    """A registration under way and a kubelet's hand."""

    def __init__(self, world: MemoryListener) -> None:
        self.world = world
        self.state = Latest(Registration(Standing.WAITING, 0.0))
        self.asked = 0

    def count(self) -> None:
        self.asked += 1

    async def notify(self, registered: bool, error: str = "") -> None:
        verdict = wire.RegistrationStatus(plugin_registered=registered, error=error)
        await self.world.call(REGISTRAR, NOTIFY, verdict.SerializeToString())
        await wait_all_tasks_blocked()

    @property
    def standing(self) -> Standing:
        return self.state.value.standing


@asynccontextmanager
async def registering(
    *directories: str, take_over: bool = False, before: Callable[[MemoryListener], None] | None = None
) -> AsyncIterator[Story]:
    world = MemoryListener(*directories)
    if before is not None:
        before(world)
    story = Story(world)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await registration.register(
                world,
                world,
                socket_path=REGISTRAR,
                info=INFO,
                on_get_info=story.count,
                state=story.state,
                delays=lambda: backoff.delays(lambda: 1.0, first_seconds=5, cap_seconds=60),
                clock=trio.current_time,
                take_over=take_over,
                task_status=task_status,
            )

        await nursery.start(run)
        await wait_all_tasks_blocked()
        yield story
        nursery.cancel_scope.cancel()


async def test_the_kubelet_asks_and_decides() -> None:
    async with registering(REGISTRY) as story:
        for _ in range(2):  # again after its restart
            answer = wire.PluginInfo.FromString(await story.world.call(REGISTRAR, GET_INFO, b""))
            assert (answer.type, answer.name, answer.endpoint) == ("DRAPlugin", "gpu.intel.com", f"{PLUGIN}/dra.sock")
            assert answer.supported_versions == ["v1.DRAPlugin", "v1beta1.DRAPlugin", "1.0.0"]
            await story.notify(registered=True)
            assert story.standing is Standing.REGISTERED
        assert story.asked == 2
        assert story.world.binds == 1
    assert story.world.files == {}


async def test_a_refusal_is_shown_and_the_socket_made_anew_with_growing_delays(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with registering(REGISTRY) as story:
        for delay in (5, 10, 20):
            binds = story.world.binds
            await story.notify(registered=False, error="no handler registered for plugin type: DRAPlugin at socket x")
            assert story.standing is Standing.REFUSED
            await advance(mock_clock, delay - 0.1)
            assert story.world.binds == binds
            await advance(mock_clock, 0.2)
            assert story.world.binds == binds + 1
            assert story.standing is Standing.REFUSED  # until there is a new verdict
        assert "no handler registered" in story.state.value.error
        await story.notify(registered=True)
        assert story.standing is Standing.REGISTERED
        await advance(mock_clock, 1000)
        assert story.world.binds == 4
        await story.notify(registered=False, error="later")
        await advance(mock_clock, 5.1)  # the series begins anew
        assert story.world.binds == 5
    loud = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "feature gate DynamicResourceAllocation is off" in loud[0]


async def test_a_kubelet_that_thinks_better_of_it_keeps_the_socket(mock_clock: MockClock) -> None:
    async with registering(REGISTRY) as story:
        await story.notify(registered=False, error="first")
        await advance(mock_clock, 3)
        await story.notify(registered=False, error="second")
        assert story.state.value.error == "second"
        await story.notify(registered=True)
        await advance(mock_clock, 1000)
        assert story.world.binds == 1


async def test_a_removed_socket_is_made_anew_at_once(mock_clock: MockClock) -> None:
    async with registering(REGISTRY) as story:
        await story.notify(registered=True)
        story.world.remove(REGISTRAR)
        await wait_all_tasks_blocked()
        assert story.world.binds == 2
        assert story.standing is Standing.WAITING
        await story.notify(registered=True)
        assert story.standing is Standing.REGISTERED


async def test_a_registry_that_comes_later_or_goes_is_waited_for(mock_clock: MockClock) -> None:
    async with registering() as story:
        assert story.standing is Standing.WAITING
        assert REGISTRAR in story.state.value.error
        await advance(mock_clock, 1000)
        story.world.make_directory(REGISTRY)
        await advance(mock_clock, 1.1)
        assert story.world.binds == 1
        assert story.state.value.error == ""
        story.world.remove_directory(REGISTRY)
        await wait_all_tasks_blocked()
        assert "No such file" in story.state.value.error
        story.world.make_directory(REGISTRY)
        await advance(mock_clock, 1.1)
        assert story.world.binds == 2


async def test_without_any_event_a_late_registry_is_found_by_trying(mock_clock: MockClock) -> None:
    async with registering() as story:
        story.world.directories.add(REGISTRY)
        await advance(mock_clock, 5.1)
        assert story.world.binds == 1


async def test_leftovers_of_crashed_predecessors_are_removed() -> None:
    leftovers = [
        REGISTRAR,
        f"{REGISTRY}/gpu.intel.com-123e4567-e89b-12d3-a456-426614174000-reg.sock",
        f"{REGISTRY}/gpu.intel.com-mGwNyVbcgis-reg.sock",
        f"{PLUGIN}/dra-123e4567-e89b-12d3-a456-426614174000.sock",
    ]

    def before(world: MemoryListener) -> None:
        for path in [*leftovers, f"{REGISTRY}/gpu.nvidia.com-reg.sock"]:
            world.files[path] = "dead"
        world.files[f"{REGISTRY}/gpu.intel.com-alive-reg.sock"] = "foreign"

    async with registering(REGISTRY, PLUGIN, before=before) as story:
        assert set(story.world.files) == {
            REGISTRAR,
            f"{REGISTRY}/gpu.intel.com-alive-reg.sock",
            f"{REGISTRY}/gpu.nvidia.com-reg.sock",
        }
        assert story.world.files[REGISTRAR] != "dead"


async def test_the_socket_of_a_sibling_that_dies_later_is_removed(mock_clock: MockClock) -> None:
    sibling, foreign = f"{REGISTRY}/gpu.intel.com-mGwNyVbcgis-reg.sock", f"{REGISTRY}/gpu.nvidia.com-reg.sock"
    async with registering(REGISTRY, before=lambda world: world.files.update({sibling: "foreign"})) as story:
        story.world.files |= {sibling: "dead", foreign: "dead"}
        await advance(mock_clock, registration.LEFTOVER_SECONDS + 1)
        assert set(story.world.files) == {REGISTRAR, foreign}


async def test_another_instance_is_reported_and_outlived(mock_clock: MockClock) -> None:
    async with registering(REGISTRY, before=lambda world: world.files.update({REGISTRAR: "foreign"})) as story:
        assert "another process" in story.state.value.error
        story.world.remove(REGISTRAR)
        await advance(mock_clock, 1.1)
        assert story.world.binds == 1


async def test_of_two_instances_with_one_name_the_later_stays(mock_clock: MockClock) -> None:
    async with registering(REGISTRY, take_over=True, before=lambda world: world.files.update({REGISTRAR: "foreign"})) as story:
        assert story.world.binds == 1
        story.world.put(REGISTRAR, "foreign")  # a still later one
        await advance(mock_clock, 100)
        assert story.world.binds == 1
        assert "another process" in story.state.value.error


@pytest.fixture
def root() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="k") as path:
        yield path


async def test_a_foreign_client_on_a_real_socket(root: str) -> None:
    kubelet, world = FakeKubelet(), MemoryListener()
    sockets = kubelet_sockets.rolling(root, "gpu.intel.com", "123e4567-e89b-12d3-a456-426614174000")
    for path in (sockets.registrar, sockets.endpoint):
        await trio.Path(path).parent.mkdir(parents=True)
    state = Latest(Registration(Standing.WAITING, 0.0))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await registration.register(
                    RpcServer(),
                    world,
                    socket_path=sockets.registrar,
                    info=PluginInfo("gpu.intel.com", sockets.endpoint, kubelet_services.SUPPORTED_VERSIONS),
                    on_get_info=lambda: None,
                    state=state,
                    delays=lambda: backoff.delays(lambda: 0.0, first_seconds=0.01, cap_seconds=0.01),
                    clock=trio.current_time,
                    task_status=task_status,
                )

            await nursery.start(run)
            assert (await kubelet.get_info(sockets.registrar)).endpoint == sockets.endpoint
            before = (await trio.Path(sockets.registrar).stat()).st_ctime_ns
            seen = state.version
            await kubelet.notify(sockets.registrar, registered=False, error="endpoint already registered")
            assert (await state.wait_newer(seen)).standing is Standing.REFUSED
            await wait_all_tasks_blocked(0.1)  # longer than the delay
            assert (await trio.Path(sockets.registrar).stat()).st_ctime_ns != before
            await kubelet.notify(sockets.registrar, registered=True)
            assert state.value.standing is Standing.REGISTERED
            nursery.cancel_scope.cancel()
    assert not await trio.Path(sockets.registrar).exists()


async def advance(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()
