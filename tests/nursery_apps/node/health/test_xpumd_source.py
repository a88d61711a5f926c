"""What a daemon that comes, goes, hangs and errs makes of our GPUs' health: over real sockets, in virtual time."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra import discovery
from dra.devices import Inventory
from dra.health.facts import Fact, Facts, Severity
from dra.health.health_settings import Health, Xpumd
from dra.names import Bdf
from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.client import RpcClient
from nursery_apps.latest import Latest
from nursery_apps.node.health import xpumd_source
from nursery_apps.node.health.xpumd_source import XpumdSource
from tests.fakes import machines, xpumd_server
from tests.fakes.xpumd_server import CRITICAL, FAILED, OK, SAMPLE_SECONDS, WARNING, CoreXpumd, device, response

GPU, OTHER = Bdf("0000:18:00.0"), Bdf("0000:3a:00.0")
FINE = {"memory": Fact("memory", Severity.FINE)}
BROKEN = {"memory": Fact("memory", Severity.FAILED, "memory: failed, Dead")}
WELL = device(GPU, {"memory": OK})
ILL = device(GPU, {"memory": (FAILED, "Dead", "")})


class Bench:
    """A source, who is told, and the daemon's socket."""

    def __init__(self, directory: str, machine: str = "server-4x-b60") -> None:
        self.path = f"{directory}/xpumd.sock"
        self.settings: Latest[Health] = Latest(Health())
        self.configure(socket=self.path)
        self.inventory: Latest[Inventory] = Latest(discovery.scan(machines.kernel(machine)))
        self.told: dict[Bdf, Facts | None] = {}
        self.tells: list[tuple[Bdf, Facts | None]] = []
        self._news = trio.Event()
        self._source = XpumdSource(RpcClient(), self.settings, self.inventory, tell=self._tell, random=random.Random(1).random)

    def _tell(self, source: str, bdf: Bdf, facts: Facts | None) -> None:
        assert source == "xpumd"
        self.told[bdf] = facts
        self.tells.append((bdf, facts))
        self._news.set()

    def configure(self, *, enabled: bool = True, **options: Any) -> None:
        self.settings.set(Health(enabled=enabled, xpumd=Xpumd(**{"socket": self.path, "min_severity": "warning", **options})))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Bench]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._source.run)
            yield self
            nursery.cancel_scope.cancel()

    async def until(self, true: Callable[[], bool], seconds: float = 3600) -> float:
        """How long it took until so, looking whenever something is told."""
        began = trio.current_time()
        with trio.fail_after(seconds):
            while not true():
                self._news = trio.Event()
                await self._news.wait()
        return trio.current_time() - began


@pytest.fixture
def directory() -> Iterator[str]:
    """A short path, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="xpumd") as path:
        yield path


@pytest.fixture
async def bench(directory: str) -> Bench:
    return Bench(directory)


@pytest.fixture
async def xpumd(bench: Bench) -> xpumd_server.Xpumd:
    return xpumd_server.Xpumd(bench.path, response(WELL))


def bound(path: str) -> socket.socket:
    """Not Trio's: that binds in a thread, and virtual time runs on meanwhile."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.bind(path)
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- what is said -----------------------------------------------------------------------------------------------------------------------


async def test_what_the_daemon_says_is_told_with_each_repetition(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd
) -> None:
    async with xpumd.running(), bench.listening():
        assert await bench.until(lambda: bench.told == {GPU: FINE}) < 1
        xpumd.said = response(ILL, device(OTHER, {"power": OK}))
        took = await bench.until(lambda: len(bench.told) == 2)
        assert took <= SAMPLE_SECONDS
        assert bench.told == {GPU: BROKEN, OTHER: {"power": Fact("power", Severity.FINE)}}
        await trio.sleep(3600)
        assert (xpumd.watched, xpumd.watching) == (1, 1), "one connection for all of it"


async def test_the_least_severity_is_the_settings(autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd) -> None:
    xpumd.said = response(device(GPU, {"memory": WARNING, "power": CRITICAL}))
    async with xpumd.running(), bench.listening():

        def bad() -> set[str]:
            return {key for key, fact in (bench.told.get(GPU) or {}).items() if fact.severity is not Severity.FINE}

        await bench.until(lambda: bad() == {"memory", "power"})
        for least, found in (("critical", {"power"}), ("failed", set()), ("warning", {"memory", "power"})):
            bench.configure(min_severity=least)
            assert await bench.until(lambda found=found: bad() == found) <= SAMPLE_SECONDS  # type: ignore[misc]
        assert xpumd.watched == 1


async def test_a_gpu_that_the_daemon_does_not_list_any_more_is_taken_back(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd
) -> None:
    xpumd.said = response(ILL, device(OTHER, {"memory": OK}))
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: BROKEN, OTHER: FINE})
        xpumd.said = response(device(OTHER, {"memory": OK}))
        await bench.until(lambda: bench.told == {GPU: None, OTHER: FINE})
        xpumd.said = b""  # as before the daemon's first sample
        await bench.until(lambda: bench.told == {GPU: None, OTHER: None})
        await trio.sleep(60)
        assert bench.tells.count((GPU, None)) == 1


async def test_strange_devices_are_named_once(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    xpumd.said = response(device("0000:99:00.0", {"memory": FAILED}), device("banana", {}), device(OTHER, {}, vendor="0x10de"), WELL)
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        await trio.sleep(600)
    assert [message.partition("passed over: ")[2] for message in warnings(caplog)] == [
        "0000:99:00.0 is none of this node's GPUs",
        "'banana' is no PCI address",
        f"{OTHER} is of vendor '0x10de', not Intel's",
    ]


async def test_garbage_without_end_is_not_logged_without_end(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    async with xpumd.running(), bench.listening():
        for number in range(50):
            xpumd.said = response(*(device(f"garbage {number} {each}", {}) for each in range(20)))
            await trio.sleep(SAMPLE_SECONDS)
    assert len(warnings(caplog)) == xpumd_source.MOST_NAMES


async def test_a_gpu_that_appears_is_spoken_of_from_then_on(autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd) -> None:
    everything = bench.inventory.value
    bench.inventory.set(Inventory())
    async with xpumd.running(), bench.listening():
        await trio.sleep(60)
        assert bench.told == {}
        bench.inventory.set(everything)
        assert await bench.until(lambda: bench.told == {GPU: FINE}) <= SAMPLE_SECONDS


async def test_sixty_four_gpus_with_twenty_names_each(autojump_clock: MockClock, directory: str) -> None:
    bench = Bench(directory, "monster-64gpu")
    gpus = [gpu.bdf for gpu in bench.inventory.value.gpus]
    names = {f"temperature.sensor{number}.of.a.long.name": (WARNING, "HighTemperature", "x" * 200) for number in range(20)}
    xpumd = xpumd_server.Xpumd(bench.path, response(*(device(bdf, names) for bdf in gpus)))
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: len(bench.told) == len(gpus))
        await trio.sleep(60)
        assert len(gpus) >= 64
        assert xpumd.watched == 1
        assert all(facts and facts["temperature"].severity is Severity.DEGRADED for facts in bench.told.values())


# --- when nothing is heard --------------------------------------------------------------------------------------------------------------


async def test_a_daemon_that_is_restarted_is_heard_again_within_seconds(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd
) -> None:
    async with bench.listening():
        for _ in range(3):
            async with xpumd.running():
                assert await bench.until(lambda: bench.told == {GPU: FINE}) <= 2
                await trio.sleep(60)
            assert await bench.until(lambda: bench.told == {GPU: None}) < 1
            await trio.sleep(0.5)


async def test_a_socket_that_is_not_there_is_waited_for_and_said_once(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.listening():
        await trio.sleep(86400)
        assert bench.tells == []
        assert [message.partition("tried again: ")[2] for message in warnings(caplog)] == ["No such file or directory"]
        async with xpumd.running():
            assert await bench.until(lambda: bench.told == {GPU: FINE}) <= xpumd_source.RETRY_AT_MOST_SECONDS


async def test_a_socket_that_nobody_serves_is_no_end(autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd) -> None:
    with bound(bench.path):
        async with bench.listening():
            await trio.sleep(600)
            async with xpumd.running():
                await bench.until(lambda: bench.told == {GPU: FINE})


async def test_a_daemon_that_falls_silent_is_connected_to_anew(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        xpumd.mute = True
        took = await bench.until(lambda: bench.told == {GPU: None})
        assert xpumd_source.SILENCE_SECONDS - SAMPLE_SECONDS <= took <= xpumd_source.SILENCE_SECONDS
        await trio.sleep(3600)
        assert xpumd.watching <= 1, "the old connections are gone"
        assert 30 <= xpumd.watched <= 60
        assert len(warnings(caplog)) == 1
        xpumd.mute = False
        await bench.until(lambda: bench.told == {GPU: FINE})


async def test_who_accepts_and_says_nothing_is_left_too(autojump_clock: MockClock, bench: Bench) -> None:
    accepted = 0

    async def hold(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        while await stream.receive_some():
            pass

    with bound(bench.path) as listening:
        listening.listen()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        async with trio.open_nursery() as nursery, bench.listening():
            nursery.start_soon(trio.serve_listeners, hold, [listener])
            await trio.sleep(600)
            assert 6 <= accepted <= 20
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [b"\xff\xff\xff", bytes(5 << 20)], ids=["illegible", "too-large"])
async def test_what_cannot_be_read_is_as_nothing(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        xpumd.said = said
        await bench.until(lambda: bench.told == {GPU: None})
        await trio.sleep(600)
        assert xpumd.watched <= 25
        assert len(warnings(caplog)) == 1
        xpumd.said = response(WELL)
        assert await bench.until(lambda: bench.told == {GPU: FINE}) <= xpumd_source.RETRY_AT_MOST_SECONDS


@pytest.mark.parametrize(
    ("status", "tries"),
    [(rpc.Status.UNIMPLEMENTED, range(6, 14)), (rpc.Status.UNAVAILABLE, range(60, 90)), (rpc.Status.INTERNAL, range(60, 90))],
)
async def test_refusals_are_tried_again_the_lasting_ones_seldom(
    autojump_clock: MockClock,
    bench: Bench,
    xpumd: xpumd_server.Xpumd,
    status: rpc.Status,
    tries: range,
    caplog: pytest.LogCaptureFixture,
) -> None:
    xpumd.refusal = rpc.RpcError(status, "not today")
    async with xpumd.running(), bench.listening():
        await trio.sleep(3600)
        assert xpumd.watched in tries
        assert [message.partition("tried again: ")[2] for message in warnings(caplog)] == [f"{status.name}: not today"]
        xpumd.refusal = None
        await bench.until(lambda: bench.told == {GPU: FINE})


async def test_one_that_ends_each_stream_is_not_asked_in_a_loop(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    xpumd.once = True
    caplog.set_level(logging.INFO, xpumd_source.__name__)
    async with xpumd.running(), bench.listening():
        await trio.sleep(600)
    assert 600 <= xpumd.watched <= 1200
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"], "that it is heard, and that it ends"


async def test_trouble_after_a_steady_time_is_news(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.listening():
        for seconds in (10, xpumd_source.STEADY_SECONDS + 10, 10):
            async with xpumd.running():
                await bench.until(lambda: bench.told == {GPU: FINE})
                await trio.sleep(seconds)
            await bench.until(lambda: bench.told == {GPU: None})
    assert sum("UNAVAILABLE" in message for message in warnings(caplog)) == 2


# --- settings, and the end --------------------------------------------------------------------------------------------------------------


async def test_another_socket_counts_at_once(autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd) -> None:
    other = xpumd_server.Xpumd(bench.path + "2", response(ILL))
    async with xpumd.running(), other.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        bench.configure(socket=other.path)
        assert await bench.until(lambda: bench.told == {GPU: BROKEN}) < 1
        assert (xpumd.watching, other.watching) == (0, 1)
        assert (GPU, None) in bench.tells


@pytest.mark.parametrize("off", [{"socket": ""}, {"enabled": False}])
async def test_it_can_be_switched_off_and_on(
    autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd, off: dict[str, Any]
) -> None:
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        bench.configure(**off)
        assert await bench.until(lambda: bench.told == {GPU: None}) < 1
        await trio.sleep(600)
        assert (xpumd.watched, xpumd.watching) == (1, 0)
        bench.configure()
        assert await bench.until(lambda: bench.told == {GPU: FINE}) < 1


async def test_settings_of_others_leave_the_connection_alone(autojump_clock: MockClock, bench: Bench, xpumd: xpumd_server.Xpumd) -> None:
    async with xpumd.running(), bench.listening():
        await bench.until(lambda: bench.told == {GPU: FINE})
        bench.settings.set(Health(period="9s", xpumd=bench.settings.value.xpumd))
        await trio.sleep(60)
        assert xpumd.watched == 1


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_moment_it_leaves_no_socket_open(bench: Bench, xpumd: xpumd_server.Xpumd, steps: int) -> None:
    async with xpumd.running():
        before = len(os.listdir("/proc/self/fd"))
        async with bench.listening():
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            while xpumd.watching or len(os.listdir("/proc/self/fd")) > before:
                await trio.lowlevel.checkpoint()


# --- a foreign daemon -------------------------------------------------------------------------------------------------------------------


async def test_a_daemon_on_grpcs_c_core_is_heard_and_its_end_noticed(bench: Bench) -> None:
    with CoreXpumd(bench.path, response(WELL)) as xpumd:
        async with bench.listening():
            await bench.until(lambda: bench.told == {GPU: FINE})
            xpumd.say(response(ILL, device("0000:99:00.0", {})))
            await bench.until(lambda: bench.told == {GPU: BROKEN})
            xpumd.say(b"")
            await bench.until(lambda: bench.told == {GPU: None})
            xpumd.say(response(WELL))
            await bench.until(lambda: bench.told == {GPU: FINE})
            await trio.to_thread.run_sync(xpumd.__exit__)
            await bench.until(lambda: bench.told == {GPU: None})
