"""What a small HTTP service does with clients that are slow, wordy, lost or hostile, with and without TLS."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import AsyncIterator, Callable

import httpcore
import pytest
import trio
import trio.testing
import trustme

from nursery_apps import http_service, tls
from nursery_apps.http_service import Answer, HttpService, Limits, Request

HOST = "127.0.0.1"
LIMITS = Limits(body_bytes=100_000, request_seconds=5, answer_seconds=3, connections=4)


class Echo:
    """Says back what it is told; what is told to /slow, late."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def refusal(self, request: Request) -> Answer | None:
        return Answer(404, b"only /echo\n") if request.path not in ("/echo", "/slow") else None

    async def respond(self, request: Request) -> Answer:
        self.seen.append(request)
        if request.path == "/slow":
            await trio.sleep(60)
        return Answer(200, request.body, "application/json")


class Server:
    def __init__(self, certificate: Callable[[], ssl.SSLContext | None] | None = None) -> None:
        self.echo = Echo()
        self.http = HttpService(self.echo, name="the echo", limits=LIMITS, certificate=certificate)
        self.port = 0

    async def say(self, *pieces: bytes, then_close: bool = False) -> bytes:
        """All that comes back for these pieces."""
        async with await trio.open_tcp_stream(HOST, self.port) as stream:
            try:
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked(0.001)
                if then_close:
                    await stream.send_eof()
                return b"".join([chunk async for chunk in stream])
            except trio.BrokenResourceError:
                return b"(reset)"


def post(path: str = "/echo", body: bytes = b"", *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    made = Server()
    made.port = await nursery.start(made.http.serve, HOST, 0)
    yield made


async def test_a_request_and_its_body_in_whatever_pieces(server: Server) -> None:
    whole = post("/echo?x=1", b'{"a": 1}', "X-Word: one", "X-Word: two")
    for size in (1, 7, len(whole)):
        answer = await server.say(*(whole[at : at + size] for at in range(0, len(whole), size)))
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'\r\n\r\n{"a": 1}')
    assert b"Connection: close" in answer
    [*_, request] = server.echo.seen
    assert (request.method, request.path, request.headers["x-word"]) == ("POST", "/echo", "one, two")


async def test_chunks_are_a_body_too(server: Server) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await server.say(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")).endswith(b"\r\n\r\nabcde")
    endless = head + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
    assert status(await server.say(endless, endless[len(head) :])) == 413


async def test_too_large_a_body_is_refused_before_it_is_read_and_the_refusal_arrives(server: Server) -> None:
    assert status(await server.say(post(body=b"x" * 5_000_000))) == 413
    assert status(await server.say(post())) == 200
    assert status(await server.say(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")) == 413
    assert len(server.echo.seen) == 1


async def test_who_waits_for_the_word_to_go_on_gets_it(server: Server) -> None:
    async with await trio.open_tcp_stream(HOST, server.port) as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"ab")
        assert (await stream.receive_some()).endswith(b"ab")


async def test_what_the_service_refuses_is_not_read(server: Server) -> None:
    assert status(await server.say(post("/other", b"x" * 50))) == 404
    assert status(await server.say(post("/other", b"x" * 5_000_000))) == 404
    assert server.echo.seen == []


async def test_a_body_that_ends_early_and_one_that_does_not_come(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    assert status(await server.say(post(body=b"x" * 50)[:-20], then_close=True)) == 408
    began = trio.current_time()
    assert status(await server.say(post(body=b"x" * 50)[:-20])) == 408
    assert trio.current_time() - began <= LIMITS.request_seconds + 2 * http_service.LAST_WORD_SECONDS


async def test_clients_that_drip_do_not_keep_others_out(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, server: Server
) -> None:
    async def drip() -> None:
        while True:
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                try:
                    for byte in post(body=b"x" * 1000):
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(1)
                except trio.BrokenResourceError:
                    pass

    for _ in range(3 * LIMITS.connections):
        nursery.start_soon(drip)
    for _ in range(3):
        began = trio.current_time()
        assert status(await server.say(post())) == 200
        assert trio.current_time() - began <= 5 * (LIMITS.request_seconds + 2)
    nursery.cancel_scope.cancel()


async def test_who_never_reads_its_answer_is_put_out(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    deaf = [await trio.open_tcp_stream(HOST, server.port) for _ in range(LIMITS.connections)]
    for stream in deaf:
        await stream.send_all(post(body=b"x" * LIMITS.body_bytes))
    assert status(await server.say(post())) == 200
    for stream in deaf:
        await stream.aclose()


async def test_a_service_that_is_slow_is_said_to_be(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    assert status(await server.say(post("/slow"))) == 503


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, 400),
        (b"POST /echo HTTP/1.1\r\nX: " + b"a" * 3 * http_service.HEADER_BYTES, 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    ],
)
async def test_what_is_not_http_is_told_so(server: Server, data: bytes, expected: int) -> None:
    assert status(await server.say(data, then_close=True)) == expected
    assert status(await server.say(post())) == 200


# --- TLS ---------------------------------------------------------------------------------------------------------------------------------


class Authority:
    """Certificates for one name, as cert-manager would renew them."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def issue(self) -> tuple[str, str]:
        made = self.ca.issue_cert("localhost", HOST)
        return b"".join(pem.bytes() for pem in made.cert_chain_pems).decode(), made.private_key_pem.bytes().decode()

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())


async def test_clients_of_two_kinds_over_tls(nursery: trio.Nursery) -> None:
    authority = Authority()
    context = tls.served_with(*authority.issue())
    server = Server(lambda: context)
    server.port = await nursery.start(server.http.serve, HOST, 0)
    async with httpcore.AsyncConnectionPool(ssl_context=authority.trusted()) as pool:
        for _ in range(2):
            answer = await pool.request("POST", f"https://localhost:{server.port}/echo", content=b"[1]")
            assert (answer.status, answer.content) == (200, b"[1]")
        refused = await pool.request("POST", f"https://localhost:{server.port}/echo", content=b"x" * 3_000_000)
        assert refused.status == 413

    def standard_library() -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("localhost", server.port, context=authority.trusted(), timeout=5)
        connection.request("POST", "/echo", b"[2]")
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert await trio.to_thread.run_sync(standard_library) == (200, b"[2]")


async def test_on_a_tls_port_nobody_is_served_without_tls_or_certificate(nursery: trio.Nursery) -> None:
    authority = Authority()
    served: list[ssl.SSLContext | None] = [None]
    server = Server(lambda: served[0])
    server.port = await nursery.start(server.http.serve, HOST, 0)
    assert await server.say(post()) in (b"", b"(reset)")
    served[0] = tls.served_with(*authority.issue())
    assert b"200" not in await server.say(post())
    async with httpcore.AsyncConnectionPool(ssl_context=ssl.create_default_context()) as distrustful:
        with pytest.raises(httpcore.ConnectError):
            await distrustful.request("POST", f"https://localhost:{server.port}/echo")
    async with httpcore.AsyncConnectionPool(ssl_context=authority.trusted()) as pool:
        assert (await pool.request("POST", f"https://localhost:{server.port}/echo")).status == 200
    assert len(server.echo.seen) == 1


async def test_a_handshake_that_stops_is_given_up(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    context = tls.served_with(*Authority().issue())
    server = Server(lambda: context)
    server.port = await nursery.start(server.http.serve, HOST, 0)
    began = trio.current_time()
    assert await server.say(b"\x16\x03\x01\x02\x00\x01") == b""
    assert trio.current_time() - began <= LIMITS.request_seconds + 1


async def test_a_key_that_is_encrypted_or_anothers_is_an_error_and_no_question() -> None:
    first, second = Authority().issue(), Authority().issue()
    with pytest.raises(ssl.SSLError):
        tls.served_with(first[0], second[1])
    with pytest.raises(ssl.SSLError):
        tls.served_with(first[0], first[1].replace("BEGIN RSA", "BEGIN").replace("BEGIN EC PRIVATE KEY", "BEGIN ENCRYPTED PRIVATE KEY"))
