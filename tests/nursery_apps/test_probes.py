"""What the kubelet, a scraper and a port scanner get from the probes' port."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from nursery_apps import http_service, probes
from nursery_apps.probes import Probes

HOST = "127.0.0.1"


class Node:
    def __init__(self) -> None:
        self.dead: str | None = None
        self.unready: str | None = None
        self.probes = Probes(
            live={"event loop": lambda: self.dead},
            ready={"API server": lambda: self.unready, "inventory": lambda: None},
            metrics=lambda: b"intel_gpu_dra_registered 1.0\n",
        )
        self.port = 0

    async def say(self, data: bytes) -> bytes:
        """Everything that comes back for `data`."""
        async with await trio.open_tcp_stream(HOST, self.port) as stream:
            await stream.send_all(data)
            try:
                return b"".join([chunk async for chunk in stream])
            except trio.BrokenResourceError:
                return b""

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.say(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


@pytest.fixture
async def node(nursery: trio.Nursery) -> AsyncIterator[Node]:
    made = Node()
    made.port = await nursery.start(made.probes.serve, HOST, 0)
    yield made


async def test_all_is_well(node: Node) -> None:
    assert await node.get("/healthz") == (200, "[ok] event loop\n")
    assert await node.get("/readyz") == (200, "[ok] API server\n[ok] inventory\n")


async def test_not_ready_says_which_check_and_why(node: Node) -> None:
    node.unready = "Unavailable: connection refused"
    assert await node.get("/readyz?verbose") == (503, "[no] API server: Unavailable: connection refused\n[ok] inventory\n")
    assert (await node.get("/healthz"))[0] == 200


async def test_metrics(node: Node) -> None:
    answer = await node.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Type: text/plain; version=0.0.4" in answer
    assert answer.endswith(b"\r\n\r\nintel_gpu_dra_registered 1.0\n")


async def test_other_paths_and_methods(node: Node) -> None:
    assert (await node.get("/"))[0] == 404
    assert (await node.get("/healthz", "POST"))[0] == 405
    assert await node.get("/healthz", "HEAD") == (200, "")


async def test_without_an_address_every_one_is_served(nursery: trio.Nursery) -> None:
    everywhere = Node()
    everywhere.port = await nursery.start(everywhere.probes.serve, "", 0)
    assert (await everywhere.get("/healthz"))[0] == 200


async def test_http_1_0(node: Node) -> None:
    assert (await node.say(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # a TLS client
        b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 3 * http_service.HEADER_BYTES,
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"a" * 3 * http_service.HEADER_BYTES,
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_garbage_ends_its_own_connection_only(node: Node, data: bytes) -> None:
    async with await trio.open_tcp_stream(HOST, node.port) as stream:
        with trio.move_on_after(5):
            try:
                await stream.send_all(data)
                await stream.send_eof()
                async for _ in stream:
                    pass
            except trio.BrokenResourceError:
                pass
    assert (await node.get("/healthz"))[0] == 200


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_no_bytes_bring_the_probes_down(garbage: list[bytes]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            node = Node()
            node.port = await nursery.start(node.probes.serve, HOST, 0)
            for data in garbage:
                async with await trio.open_tcp_stream(HOST, node.port) as stream:
                    await stream.send_all(data)
            assert (await node.get("/healthz"))[0] == 200
            nursery.cancel_scope.cancel()

    trio.run(main)


async def test_those_who_say_nothing_are_put_out_so_that_the_kubelet_gets_its_turn(
    autojump_clock: trio.testing.MockClock, node: Node
) -> None:
    silent = [await trio.open_tcp_stream(HOST, node.port) for _ in range(probes.CONNECTIONS)]
    begun = trio.current_time()
    assert (await node.get("/healthz"))[0] == 200
    assert trio.current_time() - begun <= probes.REQUEST_SECONDS
    for stream in silent:
        await stream.aclose()


async def test_a_program_that_is_out_of_descriptors_goes_on(
    autojump_clock: trio.testing.MockClock, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = 3
    accept = trio.SocketListener.accept

    async def scarce(listener: trio.SocketListener) -> Any:
        nonlocal short
        if short:
            short -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", scarce)
    for _ in range(3):  # the first is taken by the accept that was under way
        assert (await node.get("/healthz"))[0] == 200
    assert short == 0


async def test_a_port_that_is_taken_is_an_error(node: Node) -> None:
    with pytest.raises(OSError, match="in use") as taken:
        await Node().probes.serve(HOST, node.port)
    assert taken.value.errno == errno.EADDRINUSE
