"""What a foreign gRPC client (the C core) and a hostile one see of the server on Trio."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import grpc
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from tests.fakes import talk
from tests.fakes.talk import Talk
from tests.fakes.talk_pb2 import Words

T = TypeVar("T")
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
HEADERS, RESET, PING, GOAWAY = 1, 3, 6, 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


class Client:
    """The C-core client; its calls block, so they are made in threads."""

    def __init__(self, path: str, *options: tuple[str, int]) -> None:
        self.channel = grpc.insecure_channel(
            f"unix:{path}", options=[OWN_CONNECTION, ("grpc.max_receive_message_length", 64 << 20), *options]
        )

        def unary(method: str) -> Any:
            return self.channel.unary_unary(method, request_serializer=Words.SerializeToString, response_deserializer=Words.FromString)

        self.unary = unary
        self.echo, self.hang, self.fail = unary(talk.ECHO), unary(talk.HANG), unary(talk.FAIL)
        self.count = self.channel.unary_stream(
            talk.COUNT, request_serializer=Words.SerializeToString, response_deserializer=Words.FromString
        )


class Site:
    """The server under test; a test stops it by its own scope, so that the rest of the test is not cancelled with it."""

    def __init__(self, service: Talk, path: str, scope: trio.CancelScope, listening: rpc.Listening) -> None:
        self.talk, self.path, self.scope, self.listening = service, path, scope, listening
        self.client = Client(path)


@pytest.fixture
def directory() -> Iterator[str]:
    """A short path, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="rpc") as path:
        yield path


@contextlib.asynccontextmanager
async def serving(directory: str, *, grace_seconds: float = 0.2, **options: Any) -> AsyncIterator[Site]:
    service, path = Talk(), f"{directory}/talk.sock"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = RpcServer(grace_seconds=grace_seconds, **options)
            site = Site(service, path, *await nursery.start(own_scope, server, service.routes(), path, False))
            try:
                yield site
            finally:
                site.client.channel.close()
                site.scope.cancel()


async def thread(act: Callable[..., T], *arguments: Any, **options: Any) -> T:
    return await trio.to_thread.run_sync(partial(act, *arguments, **options))


async def outcome(act: Callable[..., Words], *arguments: Any, **options: Any) -> tuple[str, str]:
    try:
        return "OK", (await thread(act, *arguments, **{"timeout": 5, **options})).text
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""


# --- calls -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 60_000, 70_000, 1 << 20, 4_000_000, 20 << 20])
async def test_a_message_of_any_allowed_size_comes_back(directory: str, size: int) -> None:
    async with serving(directory, max_message_bytes=32 << 20) as site:
        payload = random.randbytes(size)
        assert (await thread(site.client.echo, Words(payload=payload), timeout=10)).payload == payload


@pytest.mark.parametrize(("messages", "size"), [(1000, 0), (64, 128 * 1024)])
async def test_a_stream_arrives_whole_and_in_order(directory: str, messages: int, size: int) -> None:
    async with serving(directory) as site:
        stream = site.client.count(Words(number=messages, payload=b"x" * size), timeout=10)
        got = await thread(list, stream)
        assert [words.number for words in got] == list(range(messages))
        assert all(len(words.payload) == size for words in got)


async def test_a_slow_reader_holds_the_sender_back(directory: str) -> None:
    async with serving(directory) as site:
        stream = site.client.count(Words(number=1000, payload=b"x" * 65536), timeout=15)
        await thread(next, stream)
        await wait_all_tasks_blocked(0.05)
        assert site.talk.sent < 500
        assert len(await thread(list, stream)) == 999


async def test_an_empty_stream_ends_well(directory: str) -> None:
    async with serving(directory) as site:
        assert await thread(list, site.client.count(Words(number=0), timeout=5)) == []


async def test_calls_know_their_deadline_and_metadata(directory: str) -> None:
    async with serving(directory) as site:
        await thread(site.client.echo, Words(), metadata=[("x-a", "b"), ("y-bin", b"\x00\xff")], timeout=30)
        await thread(site.client.echo, Words())
        limited, unlimited = site.talk.calls
        assert 20 < limited.seconds_left() < 31
        assert (limited.path, limited.metadata["x-a"], limited.metadata["y-bin"]) == (talk.ECHO, "b", b"\x00\xff")
        assert limited.has_deadline()
        assert not unlimited.has_deadline()


@pytest.mark.parametrize("channels", [1, 100])
async def test_a_hundred_calls_at_once(directory: str, channels: int) -> None:
    async with serving(directory) as site:
        clients = [site.client] if channels == 1 else [Client(site.path) for _ in range(channels)]
        calls = [clients[i % channels].hang.future(Words(text="wait", number=i), timeout=15) for i in range(100)]
        for _ in range(100):
            await site.talk.hanging.acquire()
        site.talk.let_go.set()
        assert [(await thread(call.result)).number for call in calls] == list(range(100))
        for client in clients:
            client.channel.close()


# --- the ends of calls ---------------------------------------------------------------------------------------------------------------


async def test_the_deadline_cancels_the_call_and_its_cleaning_up_is_finished(directory: str) -> None:
    async with serving(directory) as site:
        assert (await outcome(site.client.hang, Words(), timeout=0.2))[0] == "DEADLINE_EXCEEDED"
        await site.talk.cleaned.acquire()


async def test_the_server_itself_keeps_the_deadline(directory: str) -> None:
    async with serving(directory) as site:
        code, text = await thread(raw_call, site.path, talk.HANG, {"grpc-timeout": "50m"})
        assert (code, text) == ("4", "the call's deadline has passed")
        await site.talk.cleaned.acquire()


async def test_a_cancelled_call_is_cancelled_here(directory: str) -> None:
    async with serving(directory) as site:
        call = site.client.hang.future(Words())
        await site.talk.hanging.acquire()
        call.cancel()
        await site.talk.cleaned.acquire()


async def test_a_cancelled_stream_is_cancelled_here(directory: str) -> None:
    async with serving(directory) as site:
        stream = site.client.count(Words(number=10**9, payload=b"x" * 1000))
        await thread(next, stream)
        stream.cancel()
        await site.talk.cleaned.acquire()


async def test_a_stream_that_may_go_on_and_is_reset_at_once_is_cancelled_too(directory: str) -> None:
    async with serving(directory) as site:
        # The call wakes when the last of what was queued is sent, some reads later; and Trio shuffles sender and receiver.
        for reads in [0, 1, 2, 3] * 5:
            async with await deaf_peer(site) as peer:
                for _ in range(reads):
                    os.read(peer.socket.fileno(), 1 << 20)
                    await wait_all_tasks_blocked()
                os.read(peer.socket.fileno(), 1 << 20)
                os.write(peer.socket.fileno(), frame(RESET, 0, 1, bytes(4)))
                await site.talk.cleaned.acquire()


@pytest.mark.parametrize(("method", "request_"), [(talk.HANG, "Words()"), (talk.COUNT, "Words(number=10**9, payload=b'x' * 60000)")])
async def test_a_killed_client_cancels_its_call(directory: str, method: str, request_: str) -> None:
    async with serving(directory) as site:
        script = f"""
import grpc, time
from tests.fakes.talk_pb2 import Words
channel = grpc.insecure_channel("unix:{site.path}")
call = channel.unary_stream({method!r}, request_serializer=Words.SerializeToString)({request_})
call.initial_metadata()
time.sleep(60)
"""
        process = await trio.lowlevel.open_process([sys.executable, "-c", script])
        await site.talk.hanging.acquire()
        await wait_all_tasks_blocked(0.05)  # the stream: until nothing more fits
        process.kill()
        await site.talk.cleaned.acquire()
        await process.wait()


@pytest.mark.parametrize(
    ("text", "code", "details"),
    [
        ("status", "INVALID_ARGUMENT", "bad thing: é\nsecond line"),
        ("group", "ABORTED", "from a nursery"),
        ("bug", "UNKNOWN", "RuntimeError in the driver; its log says more"),
        ("long", "ABORTED", "é" * 512),
    ],
)
async def test_errors_reach_the_caller(directory: str, text: str, code: str, details: str) -> None:
    async with serving(directory) as site:
        assert await outcome(site.client.fail, Words(text=text)) == (code, details)


async def test_a_bug_in_a_call_is_logged_with_its_traceback(directory: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(directory) as site:
        await outcome(site.client.fail, Words(text="bug"))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert talk.FAIL in record.getMessage()


async def test_unknown_methods_are_unimplemented(directory: str) -> None:
    async with serving(directory) as site:
        assert (await outcome(site.client.unary("/v1alpha2.Node/NodePrepareResource"), Words()))[0] == "UNIMPLEMENTED"
        stream = site.client.channel.unary_stream("/v1alpha3.Node/NodeListAndWatchResources")
        with pytest.raises(grpc.RpcError) as refused:
            await thread(list, stream(b"", timeout=5))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_compressed_requests_are_refused_by_name(directory: str) -> None:
    async with serving(directory) as site:
        code, text = await outcome(site.client.echo, Words(text="z" * 1000), compression=grpc.Compression.Gzip)
        assert code == "UNIMPLEMENTED"
        assert "compressed" in text
        assert await outcome(site.client.echo, Words(text="plain")) == ("OK", "plain")


async def test_a_message_above_the_limit_is_refused_and_the_connection_lives(directory: str) -> None:
    async with serving(directory, max_message_bytes=100_000) as site:
        for _ in range(3):
            code, text = await outcome(site.client.echo, Words(payload=b"x" * (9 << 20)))
            assert code == "RESOURCE_EXHAUSTED"
            assert "100000" in text
        assert await outcome(site.client.echo, Words(text="hi")) == ("OK", "hi")


async def test_bytes_that_are_no_message_are_refused(directory: str) -> None:
    async with serving(directory) as site:
        call = site.client.channel.unary_unary(talk.ECHO)
        assert (await outcome(call, b"\xff\xff\xff"))[0] == "INTERNAL"


# --- hostile and odd peers -------------------------------------------------------------------------------------------------------------


async def test_garbage_costs_its_sender_the_connection_and_nobody_else(directory: str) -> None:
    async with serving(directory) as site:
        assert await thread(exchange, site.path, b"GET / HTTP/1.1\r\n\r\n" + b"\0" * 100) is not None
        assert await outcome(site.client.echo, Words(text="hi")) == ("OK", "hi")


async def test_who_breaks_http2_is_told(directory: str) -> None:
    async with serving(directory) as site:
        said = frames(await thread(exchange, site.path, PREFACE + frame(0, 0, 0, b"data on no stream")))
        assert said[-1] == (GOAWAY, 0)


async def test_frames_of_unknown_type_are_ignored(directory: str) -> None:
    async with serving(directory) as site, await trio.open_unix_socket(site.path) as peer:
        await peer.send_all(PREFACE + frame(0xFA, 0, 0, b"abcd") + frame(PING, 0, 0, b"abcdefgh"))
        await until_said(peer, b"abcdefgh")
        await peer.send_all(frame(PING, 0, 0, b"ijklmnop"))
        await until_said(peer, b"ijklmnop")


async def test_mutated_conversations_never_end_the_server(directory: str) -> None:
    chance = random.Random(7)
    async with serving(directory) as site:
        recorded = (
            raw_request(talk.ECHO, {"grpc-timeout": "1S", "x-bin": "AAA"})
            + b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x05"
            + b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08"
        )
        for _ in range(300):
            data = bytearray(recorded)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(PREFACE), len(data))] = chance.randrange(256)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(site.path)
                with contextlib.suppress(BrokenPipeError):
                    peer.sendall(data)
                    peer.shutdown(socket.SHUT_WR)
            await trio.lowlevel.checkpoint()
        assert await outcome(site.client.echo, Words(text="hi")) == ("OK", "hi")


@pytest.mark.parametrize(
    ("headers", "code", "text"),
    [
        ({"grpc-timeout": "soon"}, "13", "unreadable headers"),
        ({"grpc-timeout": "9" * 400 + "H"}, "13", "unreadable headers"),
        ({"x-bin": "A"}, "13", "unreadable headers"),
    ],
)
async def test_headers_that_cannot_be_read_end_the_call_only(directory: str, headers: dict[str, str], code: str, text: str) -> None:
    async with serving(directory) as site:
        got = await thread(raw_call, site.path, talk.ECHO, headers)
        assert got[0] == code
        assert got[1].startswith(text)


async def test_keepalive_pings_are_answered(directory: str) -> None:
    """A client that got no answers would give up the connection with UNAVAILABLE long before its deadline."""
    async with serving(directory) as site:
        client = Client(
            site.path,
            ("grpc.keepalive_time_ms", 100),
            ("grpc.keepalive_timeout_ms", 100),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        )
        assert (await outcome(client.hang, Words(), timeout=1))[0] == "DEADLINE_EXCEEDED"
        client.channel.close()


async def test_connections_leave_nothing_behind(directory: str) -> None:
    script = """
import sys, grpc
from tests.fakes import talk
from tests.fakes.talk_pb2 import Words
for i in range(100):
    channel = grpc.insecure_channel("unix:" + sys.argv[1], options=[("grpc.use_local_subchannel_pool", 1)])
    echo = channel.unary_unary(talk.ECHO, request_serializer=Words.SerializeToString)
    echo(Words(), timeout=5)
    stream = channel.unary_stream(talk.COUNT, request_serializer=Words.SerializeToString)(Words(number=10**6, payload=b"x" * 5000))
    next(stream)
    if i % 2:
        stream.cancel()
    channel.close()
"""
    async with serving(directory) as site:
        before = len(os.listdir("/proc/self/fd"))
        done = await trio.run_process([sys.executable, "-c", script, site.path], check=False, capture_stderr=True)
        assert done.returncode == 0, done.stderr
        for _ in range(100):
            await site.talk.cleaned.acquire()
        await wait_all_tasks_blocked(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_client_that_says_nothing_is_dropped(directory: str, autojump_clock: MockClock) -> None:
    async with serving(directory) as site:
        async with await trio.open_unix_socket(site.path) as silent:
            while await silent.receive_some():  # what the server says first
                pass
        assert trio.current_time() >= 20


# --- stopping ----------------------------------------------------------------------------------------------------------------------------


async def test_calls_in_flight_are_finished_and_the_socket_is_gone_before(directory: str) -> None:
    async with serving(directory, grace_seconds=10) as site:
        call = site.client.hang.future(Words(text="wait"), timeout=15)
        await site.talk.hanging.acquire()
        site.scope.cancel()
        with trio.fail_after(10):
            await wait_all_tasks_blocked()
            assert os.listdir(directory) == []
            site.talk.let_go.set()
            assert await outcome(call.result) == ("OK", "wait")


async def test_calls_that_outlast_the_grace_are_told_unavailable(directory: str) -> None:
    async with serving(directory, grace_seconds=0.05) as site:
        call = site.client.hang.future(Words(), timeout=15)
        await site.talk.hanging.acquire()
        site.scope.cancel()
        with trio.fail_after(10):
            assert await outcome(call.result) == ("UNAVAILABLE", "the driver is stopping")
            await site.talk.cleaned.acquire()


async def test_a_stream_ends_at_once_and_other_calls_have_the_grace(directory: str) -> None:
    async with serving(directory, grace_seconds=20) as site:
        call = site.client.hang.future(Words(text="wait"), timeout=15)
        stream = site.client.count(Words(number=1, text="wait"), timeout=15)
        await thread(next, stream)
        for _ in range(2):
            await site.talk.hanging.acquire()
        site.scope.cancel()
        assert await outcome(partial(_the_next, stream)) == ("UNAVAILABLE", "the driver is stopping")
        await site.talk.cleaned.acquire()
        site.talk.let_go.set()
        assert await outcome(call.result) == ("OK", "wait")


async def test_a_stream_that_comes_while_others_have_the_grace_is_refused(directory: str) -> None:
    async with serving(directory, grace_seconds=20) as site, await trio.open_unix_socket(site.path) as peer:
        await peer.send_all(raw_request(talk.HANG, {}, Words(text="wait").SerializeToString()))
        await site.talk.hanging.acquire()
        site.scope.cancel()
        await until_said(peer, frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"))
        await peer.send_all(raw_request(talk.COUNT, {}, Words(number=1, text="wait").SerializeToString(), stream=3).removeprefix(PREFACE))
        await until_said(peer, b"\1\5\0\0\0\3")  # headers that end stream 3
        site.talk.let_go.set()
        assert frames(await until_said(peer, b""))[-1] == (HEADERS, 1)


async def test_peers_are_asked_to_go_elsewhere(directory: str) -> None:
    async with serving(directory, grace_seconds=10) as site, await trio.open_unix_socket(site.path) as peer:
        await peer.send_all(raw_request(talk.HANG, {}, Words(text="wait").SerializeToString()))
        await site.talk.hanging.acquire()
        site.scope.cancel()
        with trio.fail_after(5):
            said = await until_said(peer, frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"))
            assert (HEADERS, 1) not in frames(said)
            site.talk.let_go.set()
            assert frames(await until_said(peer, b""))[-1] == (HEADERS, 1)  # the trailers, then the end


async def test_a_peer_that_reads_nothing_costs_little_and_does_not_hold_up_the_stop(directory: str, autojump_clock: MockClock) -> None:
    async with serving(directory) as site, await deaf_peer(site):
        assert site.talk.sent < 500
        site.scope.cancel()
        with trio.fail_after(10):
            await site.talk.cleaned.acquire()


async def test_a_call_that_nobody_reads_ends_soon_after_its_deadline(directory: str, mock_clock: MockClock) -> None:
    async with contextlib.AsyncExitStack() as until_the_end:
        async with serving(directory, grace_seconds=1000) as site:
            await until_the_end.enter_async_context(await deaf_peer(site, {"grpc-timeout": "1S"}))
            for seconds in (1.1, 5.1):  # the deadline, then patience for the status
                mock_clock.jump(seconds)
                await wait_all_tasks_blocked()
            mock_clock.autojump_threshold = 0
            site.scope.cancel()
            stopped_at = trio.current_time()
        assert trio.current_time() - stopped_at < 5


async def test_a_peer_that_reads_nothing_and_breaks_http2_is_cut_off(directory: str, mock_clock: MockClock) -> None:
    async with serving(directory) as site, await deaf_peer(site) as peer:
        await peer.send_all(frame(0, 0, 0, b"data on no stream"))
        await site.talk.cleaned.acquire()
        await wait_all_tasks_blocked()
        mock_clock.jump(3)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await peer.send_all(b"x")


# --- the socket file ----------------------------------------------------------------------------------------------------------------------


async def test_the_socket_is_private_and_reachable(directory: str) -> None:
    async with serving(directory) as site:
        assert os.stat(site.path).st_mode & 0o777 == 0o600
        assert site.listening.reachable()
        os.rename(site.path, site.path + ".old")
        assert not site.listening.reachable()


async def test_a_dead_socket_is_replaced(directory: str) -> None:
    make_dead_socket(f"{directory}/talk.sock")
    async with serving(directory) as site:
        assert await outcome(site.client.echo, Words(text="hi")) == ("OK", "hi")


async def test_a_served_socket_is_left_alone(directory: str) -> None:
    async with serving(directory) as site:
        with pytest.raises(OSError, match="second instance") as refused:
            await RpcServer().serve_unix([], site.path)
        assert refused.value.errno == errno.EADDRINUSE
        assert await outcome(site.client.echo, Words(text="hi")) == ("OK", "hi")


async def test_taking_over_leaves_the_successors_file_when_the_predecessor_stops(directory: str) -> None:
    async with trio.open_nursery() as nursery:
        predecessor, _ = await nursery.start(own_scope, RpcServer(grace_seconds=0), [], f"{directory}/talk.sock", False)
        successor, _ = await nursery.start(own_scope, RpcServer(grace_seconds=0), Talk().routes(), f"{directory}/talk.sock", True)
        predecessor.cancel()
        await wait_all_tasks_blocked()
        client = Client(f"{directory}/talk.sock")
        assert await outcome(client.echo, Words(text="new")) == ("OK", "new")
        client.channel.close()
        successor.cancel()
    assert os.listdir(directory) == []


async def test_a_file_that_is_no_socket_is_left_alone(directory: str) -> None:
    make_file(f"{directory}/talk.sock")
    with pytest.raises(FileExistsError, match="no socket"):
        await RpcServer().serve_unix([], f"{directory}/talk.sock")


@pytest.mark.parametrize("length", [107, 108])
async def test_the_kernels_limit_of_a_path_is_checked_before_binding(directory: str, length: int) -> None:
    path = f"{directory}/{'x' * (length - len(directory) - 1)}"
    async with trio.open_nursery() as nursery:
        if length == 107:
            (await nursery.start(own_scope, RpcServer(), [], path, False))[0].cancel()
        else:
            with pytest.raises(ValueError, match="108 bytes"):
                await RpcServer().serve_unix([], path)


async def test_a_missing_directory_is_named(directory: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/talk\.sock"):
        await RpcServer().serve_unix([], f"{directory}/nowhere/talk.sock")


async def test_only_dead_candidates_are_removed(directory: str) -> None:
    for name in ("ours-1.sock", "ours-2.sock", "theirs.sock"):
        make_dead_socket(f"{directory}/{name}")
    make_file(f"{directory}/ours-file")
    server = RpcServer(grace_seconds=0)
    async with trio.open_nursery() as nursery:
        alive, _ = await nursery.start(own_scope, server, [], f"{directory}/ours-alive.sock", False)
        assert server.remove_dead(directory, lambda name: name.startswith("ours")) == ["ours-1.sock", "ours-2.sock"]
        assert sorted(os.listdir(directory)) == ["ours-alive.sock", "ours-file", "theirs.sock"]
        alive.cancel()
    assert server.remove_dead(f"{directory}/nowhere", lambda name: True) == []


# --- tools of this file -------------------------------------------------------------------------------------------------------------------


async def own_scope(
    server: RpcServer,
    routes: list[rpc.Route],
    path: str,
    take_over: bool,
    *,
    task_status: trio.TaskStatus[tuple[trio.CancelScope, rpc.Listening]],
) -> None:
    """Serve in a scope that can be cancelled alone."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            listening = await nursery.start(partial(server.serve_unix, routes, path, take_over=take_over))
            task_status.started((scope, listening))


def make_dead_socket(path: str) -> None:
    """What a killed process leaves."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()


def make_file(path: str) -> None:
    with open(path, "w") as file:
        file.write("precious")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def raw_request(path: str, headers: dict[str, str], message: bytes = b"", *, window: int = 0, stream: int = 1) -> bytes:
    """A call by hand: headers as HPACK literals without index."""

    def text(value: str) -> bytes:
        raw, rest, more = value.encode("latin-1"), 0, b""
        if len(raw) >= 127:
            rest = len(raw) - 127
            while rest >= 128:
                more += bytes([rest % 128 + 128])
                rest //= 128
            return b"\x7f" + more + bytes([rest]) + raw
        return bytes([len(raw)]) + raw

    every = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "%2Fvar%2Flib",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + text(name) + text(value) for name, value in (every | headers).items())
    opening = PREFACE
    if window:
        opening = PREFACE[:24] + frame(4, 0, 0, b"\0\4" + window.to_bytes(4, "big")) + frame(8, 0, 0, window.to_bytes(4, "big"))
    return opening + frame(1, 4, stream, block) + frame(0, 1, stream, b"\0" + len(message).to_bytes(4, "big") + message)


def _the_next(stream: Any, timeout: float) -> Words:
    words: Words = next(stream)
    return words


def raw_call(path: str, method: str, headers: dict[str, str]) -> tuple[str, str]:
    """(grpc-status, grpc-message) of a call that has no client-side deadline."""
    from urllib.parse import unquote

    from hpack import Decoder

    decoder, data = Decoder(), b""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(path)
        peer.sendall(raw_request(method, headers))
        while True:
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                length, kind = int.from_bytes(data[:3], "big"), data[3]
                if kind == 1:
                    got = dict(decoder.decode(data[9 : 9 + length]))
                    if "grpc-status" in got:
                        return got["grpc-status"], unquote(got.get("grpc-message", ""))
                data = data[9 + length :]
            more = peer.recv(65536)
            if not more:
                raise AssertionError("closed without a status")
            data += more


def exchange(path: str, data: bytes) -> bytes:
    """Everything the server says until it closes."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(path)
        peer.sendall(data)
        got = b""
        while more := peer.recv(65536):
            got += more
        return got


def frames(said: bytes) -> list[tuple[int, int]]:
    """(type, stream) of each frame."""
    found = []
    while len(said) >= 9:
        found.append((said[3], int.from_bytes(said[5:9], "big")))
        said = said[9 + int.from_bytes(said[:3], "big") :]
    return found


async def until_said(peer: trio.SocketStream, wanted: bytes) -> bytes:
    """What the server says up to `wanted`; all of it if that is empty."""
    said = b""
    while not wanted or wanted not in said:
        more = await peer.receive_some()
        if not more:
            assert not wanted, said
            break
        said += more
    return said


async def deaf_peer(site: Site, headers: dict[str, str] | None = None) -> trio.SocketStream:
    """Allows the server to send without end and reads nothing; returns when the server has found out."""
    peer = await trio.open_unix_socket(site.path)
    wish = Words(number=10**6, payload=b"x" * 10000).SerializeToString()
    await peer.send_all(raw_request(talk.COUNT, headers or {}, wish, window=1 << 30))
    await site.talk.hanging.acquire()
    await wait_all_tasks_blocked()
    return peer
