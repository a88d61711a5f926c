"""What the client on Trio sees of a foreign gRPC server (the C core), of our own, and of peers that break the rules."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import grpc
import pytest
import trio
import trio.testing
from hpack import Encoder

from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.client import RpcClient
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from tests.fakes import talk
from tests.fakes.talk_pb2 import Words

GROW = "/tests.talk.Talk/Grow"
"""Answers with three messages of as many bytes as it is told."""
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


class Peer(Protocol):
    async def cancelled(self) -> None:
        """Until a call was cancelled over there."""

    async def stop(self) -> None:
        """As a server does that is told to stop: callers are asked to go elsewhere."""


class CorePeer:
    """The service of `tests.fakes.talk` on grpcio's C core."""

    def __init__(self, path: str) -> None:
        self._cancelled = trio.Semaphore(0)
        self._token = trio.lowlevel.current_trio_token()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", 64 << 20)])
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def _handlers(self) -> Any:
        def stream(answer: Callable[[Words, Any], Iterator[Words]]) -> Any:
            return grpc.unary_stream_rpc_method_handler(answer, Words.FromString, Words.SerializeToString)

        methods = {"Count": stream(self._count), "Fail": stream(self._fail), "Grow": stream(self._grow)}
        return grpc.method_handlers_generic_handler("tests.talk.Talk", methods)

    def _count(self, words: Words, context: Any) -> Iterator[Words]:
        context.add_callback(lambda: self._token.run_sync_soon(self._cancelled.release))
        for number in range(words.number):
            yield Words(number=number, payload=words.payload)
        while words.text == "wait" and context.is_active():
            yield Words()

    def _fail(self, words: Words, context: Any) -> Iterator[Words]:
        yield Words(number=1)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad thing: é\nsecond line")

    def _grow(self, words: Words, context: Any) -> Iterator[Words]:
        for _ in range(3):
            yield Words(payload=bytes(words.number))

    async def cancelled(self) -> None:
        await self._cancelled.acquire()

    async def stop(self) -> None:
        await trio.to_thread.run_sync(self.close)

    def close(self) -> None:
        self._server.stop(0).wait(5)


class OwnPeer:
    def __init__(self, service: talk.Talk, scope: trio.CancelScope) -> None:
        self._service, self._scope = service, scope

    async def cancelled(self) -> None:
        await self._service.cleaned.acquire()

    async def stop(self) -> None:
        self._scope.cancel()
        await trio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def core(path: str) -> AsyncIterator[Peer]:
    peer = CorePeer(path)
    try:
        yield peer
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def own(path: str) -> AsyncIterator[Peer]:
    async def fail(words: Words, call: rpc.Call, send: Callable[[Words], Any]) -> None:
        await send(Words(number=1))
        raise rpc.RpcError(rpc.Status.INVALID_ARGUMENT, "bad thing: é\nsecond line")

    async def grow(words: Words, call: rpc.Call, send: Callable[[Words], Any]) -> None:
        for _ in range(3):
            await send(Words(payload=bytes(words.number)))

    service = talk.Talk()
    routes = [route for route in service.routes() if route.path == talk.COUNT]
    for method, answer in ((talk.FAIL, fail), (GROW, grow)):
        routes.append(rpc.ServerStream(method, Words.FromString, Words.SerializeToString, answer))
    async with trio.open_nursery() as nursery:
        await nursery.start(RpcServer(grace_seconds=0.2).serve_unix, routes, path)
        yield OwnPeer(service, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


@pytest.fixture
def path() -> Iterator[str]:
    """A short one, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="rpc") as directory:
        yield f"{directory}/talk.sock"


@pytest.fixture(params=[core, own], ids=["core", "own"])
def serving(request: pytest.FixtureRequest, path: str) -> Callable[[], AbstractAsyncContextManager[Peer]]:
    opener: Callable[[str], AbstractAsyncContextManager[Peer]] = request.param
    return lambda: opener(path)


async def every(path: str, method: str, words: Words, **options: Any) -> list[Words]:
    got = []
    async with RpcClient(**options).stream_unix(path, method, words.SerializeToString()) as answers:
        while (data := await answers.receive()) is not None:
            got.append(Words.FromString(data))
    return got


Serving = Callable[[], AbstractAsyncContextManager[Peer]]

# --- calls -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("messages", "size"), [(0, 0), (1, 0), (1000, 0), (500, 10_000)])
async def test_a_stream_arrives_whole_and_in_order(serving: Serving, path: str, messages: int, size: int) -> None:
    async with serving():
        got = await every(path, talk.COUNT, Words(number=messages, payload=b"x" * size))
        assert all(len(words.payload) == size for words in got)
        assert [words.number for words in got] == list(range(messages))


@pytest.mark.parametrize("size", [16_000, 70_000, 4_000_000])
async def test_messages_larger_than_a_frame_and_a_window_arrive(serving: Serving, path: str, size: int) -> None:
    async with serving():
        assert [len(words.payload) for words in await every(path, GROW, Words(number=size))] == [size] * 3


async def test_a_call_may_be_made_again_and_several_at_once(serving: Serving, path: str) -> None:
    async with serving():
        counts: list[int] = []

        async def count() -> None:
            counts.append(len(await every(path, talk.COUNT, Words(number=100))))

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(count)
        assert counts == [100] * 9


async def test_what_is_not_taken_holds_the_sender_back(path: str) -> None:
    async with trio.open_nursery() as nursery:
        service = talk.Talk()
        await nursery.start(RpcServer(grace_seconds=0).serve_unix, service.routes(), path)
        request = Words(number=10_000, payload=b"x" * 10_000).SerializeToString()
        async with RpcClient().stream_unix(path, talk.COUNT, request) as answers:
            await answers.receive()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert service.sent < 500
            for _ in range(9_999):
                await answers.receive()
            assert await answers.receive() is None
        nursery.cancel_scope.cancel()


# --- the ends of calls ---------------------------------------------------------------------------------------------------------------


async def test_leaving_cancels_the_call_over_there(serving: Serving, path: str) -> None:
    async with serving() as peer:
        async with RpcClient().stream_unix(path, talk.COUNT, Words(number=1, text="wait").SerializeToString()) as answers:
            await answers.receive()
        await peer.cancelled()


async def test_being_cancelled_while_receiving_cancels_it_too(serving: Serving, path: str) -> None:
    async with serving() as peer:
        with trio.move_on_after(0.1) as scope:
            async with RpcClient().stream_unix(path, talk.COUNT, Words(number=1, text="wait").SerializeToString()) as answers:
                while True:
                    await answers.receive()
        assert scope.cancelled_caught
        await peer.cancelled()


async def test_a_status_comes_after_the_messages_before_it(serving: Serving, path: str) -> None:
    async with serving(), RpcClient().stream_unix(path, talk.FAIL, b"") as answers:
        assert await answers.receive() == Words(number=1).SerializeToString()
        for _ in range(2):
            with pytest.raises(rpc.RpcError) as refused:
                await answers.receive()
            assert (refused.value.status, refused.value.message) == (rpc.Status.INVALID_ARGUMENT, "bad thing: é\nsecond line")


async def test_a_method_that_is_not_there_is_unimplemented(serving: Serving, path: str) -> None:
    async with serving():
        with pytest.raises(rpc.RpcError) as refused:
            await every(path, "/tests.talk.Talk/Nothing", Words())
        assert refused.value.status is rpc.Status.UNIMPLEMENTED


async def test_a_server_that_stops_makes_it_unavailable(serving: Serving, path: str) -> None:
    async with serving() as peer:
        async with RpcClient().stream_unix(path, talk.COUNT, Words(number=1, text="wait").SerializeToString()) as answers:
            await answers.receive()
            await peer.stop()
            with pytest.raises(rpc.RpcError) as ended:
                while True:
                    assert await answers.receive() is not None
        assert ended.value.status in (rpc.Status.UNAVAILABLE, rpc.Status.CANCELLED)


async def test_a_message_that_is_too_large_ends_the_call_before_it_is_read(serving: Serving, path: str) -> None:
    async with serving() as peer:
        with pytest.raises(rpc.RpcError, match="at most 5000") as refused:
            await every(path, talk.COUNT, Words(number=10**6, payload=b"x" * 6000), max_message_bytes=5000)
        assert refused.value.status is rpc.Status.RESOURCE_EXHAUSTED
        await peer.cancelled()


async def test_a_request_is_bounded(path: str) -> None:
    with pytest.raises(ValueError, match="at most 16379"):
        await every(path, talk.COUNT, Words(payload=bytes(20_000)))


async def test_where_nobody_is_the_system_says_so(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        await every(path, talk.COUNT, Words())
    with trio.socket.socket(trio.socket.AF_UNIX) as dead:
        await dead.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await every(path, talk.COUNT, Words())


async def test_a_server_that_does_not_accept_any_more_makes_it_unavailable(path: str) -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                waiting.connect(path)
        with pytest.raises(rpc.RpcError) as refused:
            await every(path, talk.COUNT, Words())
        assert refused.value.status is rpc.Status.UNAVAILABLE


# --- peers that break the rules ------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(*pairs: tuple[str, str], end: bool = False) -> bytes:
    """Those of a gRPC answer; a new encoder each time, so no table is shared."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), 1, Encoder().encode(list(pairs)))


HELLO = frame(SETTINGS, 0, 0, b"")
OPENING = HELLO + headers((":status", "200"), ("content-type", "application/grpc"))
MESSAGE = frame(DATA, 0, 1, b"\0\0\0\0\x02hi")
WELL = headers(("grpc-status", "0"), end=True)
GO_AWAY = frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4) + b"restart")


async def said_by(path: str, said: bytes) -> tuple[list[bytes], rpc.RpcError | None]:
    """What the client makes of a peer that says this and closes: the messages, and how it ended."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(said)
        await stream.receive_some()  # closing with a request unread would be a reset, which may overtake what was said

    got: list[bytes] = []
    ended: rpc.RpcError | None = None
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(path)
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, speak, [trio.SocketListener(listening)])
            try:
                async with RpcClient().stream_unix(path, talk.COUNT, b"") as answers:
                    while (data := await answers.receive()) is not None:
                        got.append(data)
            except rpc.RpcError as error:
                ended = error
            nursery.cancel_scope.cancel()
    return got, ended


@pytest.mark.parametrize(
    ("said", "messages", "status", "text"),
    [
        (OPENING + MESSAGE * 2 + WELL, 2, None, ""),
        (HELLO + headers((":status", "200"), ("grpc-status", "12"), ("grpc-message", "no%20such"), end=True), 0, 12, "no such"),
        (OPENING + MESSAGE + headers(("grpc-status", "99"), end=True), 1, 2, "status '99'"),
        (OPENING + MESSAGE + headers(("grpc-status", "many"), end=True), 1, 2, "status 'many'"),
        (OPENING + MESSAGE + headers(("x-more", "1"), end=True), 1, 13, "without a status"),
        (OPENING + frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"), 1, 13, "without a status"),
        (OPENING + frame(DATA, 0, 1, b"\0\0\0\0\x09hi") + WELL, 0, 13, "within a message"),
        (OPENING + frame(DATA, 0, 1, b"\1\0\0\0\x02hi") + WELL, 0, 13, "compressed"),
        (OPENING + frame(DATA, 0, 1, b"\0\xff\xff\xff\xffhi"), 0, 8, "at most 4194304"),
        (HELLO + headers((":status", "404"), end=True), 0, 12, "HTTP status 404"),
        (HELLO + headers((":status", "503"), end=True), 0, 14, "HTTP status 503"),
        (HELLO + headers((":status", "418"), end=True), 0, 2, "HTTP status 418"),
        (OPENING + MESSAGE + frame(RESET, 0, 1, (8).to_bytes(4, "big")), 1, 14, "CANCEL"),
        (OPENING + MESSAGE + frame(RESET, 0, 1, (77).to_bytes(4, "big")), 1, 14, "77"),
        (OPENING + MESSAGE + GO_AWAY, 1, 14, "elsewhere: NO_ERROR restart"),
        (OPENING + MESSAGE + GO_AWAY + MESSAGE + headers(("grpc-status", "10"), end=True), 2, 10, ""),
        (OPENING + MESSAGE + frame(DATA, 0, 1, b""), 1, 14, "closed"),
        (b"", 0, 14, "closed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0, 14, "closed"),  # to HTTP/2 the beginning of a long frame
        (HELLO + frame(DATA, 0, 1, b"before the headers"), 0, 13, "no HTTP/2"),
        (OPENING + frame(0xFA, 0, 0, b"a type nobody knows") + MESSAGE + WELL, 1, None, ""),
    ],
    ids=itertools.count(),
)
async def test_what_peers_say_is_an_end_with_a_reason(path: str, said: bytes, messages: int, status: int | None, text: str) -> None:
    got, error = await said_by(path, said)
    assert got == [b"hi"] * messages
    assert (error and error.status) == status
    assert text in (error.message if error else "")


async def test_a_message_in_many_pieces_is_one(path: str) -> None:
    payload = b"\0\0\0\0\x02hi"
    said = OPENING + b"".join(frame(DATA, 0, 1, payload[at : at + 1]) for at in range(len(payload))) + WELL
    assert await said_by(path, said) == ([b"hi"], None)


async def test_noise_ends_the_call_and_nothing_else(path: str) -> None:

    chance = random.Random(11)
    for _ in range(200):
        data = bytearray(OPENING + MESSAGE * 3 + WELL)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        await said_by(path, bytes(data))
        os.unlink(path)
