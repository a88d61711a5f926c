"""What only HTTP knows: statuses, credentials, TLS, broken connections."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import msgspec
import pytest
import trio
import trustme

from nursery_apps import tls
from nursery_apps.credentials import Identity, Transport
from nursery_apps.edges import kube_api
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.seams import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Resource,
    Throttled,
    Unavailable,
)
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_http import KubeHttp, serving

SLICES: Resource[dict[str, Any]] = Resource("resource.k8s.io/v1", "resourceslices", dict)
BODY = {"metadata": {"name": "x"}, "spec": {"nodeName": "n"}}


class Rotating:
    """Credentials that are new after each refusal."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.token = 1

    async def identity(self) -> Identity:
        await trio.lowlevel.checkpoint()
        return Identity(self.transport, f"Bearer token-{self.token}")

    def refused(self) -> None:
        self.token += 1


class Setup:
    def __init__(self, http: KubeHttp, transport: Transport) -> None:
        self.http = http
        self.credentials = Rotating(transport)
        self.api = HttpKubeApi(self.credentials, user_agent="gpu.intel.com/0.1", random=lambda: 0.5)


@contextlib.asynccontextmanager
async def running(**options: Any) -> Any:
    http = KubeHttp(FakeKubeApi())
    async with serving(http, options.pop("tls", None)) as url:
        setup = Setup(http, Transport(url, **options))
        try:
            yield setup
        finally:
            await setup.api.aclose()


def status(code: int, reason: str, **more: Any) -> bytes:
    return msgspec.json.encode({"kind": "Status", "code": code, "reason": reason, "message": "because", **more})


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", Conflict),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
async def test_each_status_has_its_error(code: int, reason: str, kind: type[ApiError]) -> None:
    async with running() as setup:
        setup.http.answers.append((code, {}, status(code, reason)))
        with pytest.raises(kind) as caught:
            await setup.api.get(SLICES, "x")
        assert (caught.value.status, caught.value.reason, caught.value.message) == (code, reason, "because")


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, status(429, "TooManyRequests"), 7),
        ({}, status(429, "TooManyRequests", details={"retryAfterSeconds": 3}), 3),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"slow down", None),
        ({}, b"", None),
    ],
)
async def test_a_throttling_server_says_for_how_long(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    async with running() as setup:
        setup.http.answers.append((429, headers, body))
        with pytest.raises(Throttled) as caught:
            await setup.api.list(SLICES)
        assert caught.value.retry_after_seconds == seconds


async def test_a_refused_token_is_read_again_and_the_call_made_once_more() -> None:
    async with running() as setup:
        setup.http.answers.append((401, {}, status(401, "Unauthorized")))
        await setup.api.create(SLICES, BODY)
        assert [headers["authorization"] for _, _, headers in setup.http.requests] == ["Bearer token-1", "Bearer token-2"]
        setup.http.answers += [(401, {}, status(401, "Unauthorized"))] * 2
        with pytest.raises(Forbidden):
            await setup.api.create(SLICES, BODY)


async def test_a_watch_reads_a_refused_token_again_too() -> None:
    async with running() as setup:
        setup.http.answers.append((401, {}, status(401, "Unauthorized")))
        setup.http.api.put("resourceslices", BODY)
        events = setup.api.watch(SLICES, resource_version="0")
        async with contextlib.aclosing(events):
            assert (await anext(events)).type == "ADDED"
        setup.http.answers += [(401, {}, status(401, "Unauthorized"))] * 2
        with pytest.raises(Forbidden):
            await anext(setup.api.watch(SLICES, resource_version="0"))


async def test_a_connection_closed_under_a_read_costs_nothing_and_under_a_write_is_told() -> None:
    async with running() as setup:
        await setup.api.list(SLICES)
        setup.http.answers.append((0, {}, b""))
        await setup.api.list(SLICES)
        setup.http.answers.append((0, {}, b""))
        with pytest.raises(Unavailable):
            await setup.api.create(SLICES, BODY)
        assert [method for method, _, _ in setup.http.requests].count("POST") == 1


async def test_connections_are_kept_and_no_more_than_eight() -> None:
    async with running() as setup, trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(setup.api.list, SLICES)
        with trio.fail_after(5):
            while len(setup.http.requests) < 40:
                await trio.testing.wait_all_tasks_blocked()
        assert setup.http.connections <= 8


async def test_watches_do_not_take_the_connections_of_calls() -> None:
    async with running() as setup, trio.open_nursery() as nursery:

        async def watch() -> None:
            async with contextlib.aclosing(setup.api.watch(SLICES, resource_version="100")) as events:
                async for _ in events:
                    pass

        for _ in range(20):
            nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(2):
            await setup.api.list(SLICES)
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    api = HttpKubeApi(Rotating(Transport("http://127.0.0.1:1")), user_agent="t", random=lambda: 0.5)
    with pytest.raises(Unavailable, match=r"GET http://127\.0\.0\.1:1/api.*refused"):
        await api.get(SLICES, "x")
    with pytest.raises(Unavailable, match="refused"):
        await anext(api.watch(SLICES, resource_version="1"))
    await api.aclose()


@pytest.mark.parametrize("verb", ["get", "create", "watch"])
async def test_a_server_that_never_answers_is_unavailable_after_the_deadline(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "CALL_DEADLINE_SECONDS", 0.1)
    async with running() as setup:
        setup.http.silent = True
        with pytest.raises(Unavailable), trio.fail_after(5):
            match verb:
                case "get":
                    await setup.api.get(SLICES, "x")
                case "create":
                    await setup.api.create(SLICES, BODY)
                case _:
                    await anext(setup.api.watch(SLICES, resource_version="1"))
        setup.http.silent = False
        assert (await setup.api.list(SLICES)).items == []


async def test_a_silent_watch_is_given_up_after_the_time_the_server_was_to_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "WATCH_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(kube_api, "WATCH_SLACK_SECONDS", 0.05)
    async with running() as setup:
        with pytest.raises(Unavailable, match="watch of resourceslices"), trio.fail_after(5):
            await anext(setup.api.watch(SLICES, resource_version="100"))


async def test_what_is_asked_for_is_on_the_wire() -> None:
    async with running() as setup:
        await setup.api.list(SLICES, field_selector="spec.driver=gpu.intel.com,spec.nodeName=n")
        method, target, headers = setup.http.requests[-1]
        assert (method, target) == (
            "GET",
            "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.driver%3Dgpu.intel.com%2Cspec.nodeName%3Dn&limit=500",
        )
        assert headers["user-agent"] == "gpu.intel.com/0.1" and headers["host"].startswith("127.0.0.1:")
        setup.http.api.put("resourceslices", BODY)
        async with contextlib.aclosing(setup.api.watch(SLICES, resource_version="0")) as events:
            await anext(events)
        assert "allowWatchBookmarks=true" in setup.http.requests[-1][1] and "timeoutSeconds=450" in setup.http.requests[-1][1]


@pytest.mark.parametrize(("body", "kind"), [(b"<html>", Unavailable), (b'{"metadata": []}', Invalid), (b"\xff\xfe", Unavailable)])
async def test_an_answer_from_somebody_else_is_an_error_of_ours(body: bytes, kind: type[ApiError]) -> None:
    class Named(msgspec.Struct):
        metadata: dict[str, str]

    async with running() as setup:
        setup.http.answers.append((200, {}, body))
        with pytest.raises(kind):
            await setup.api.get(Resource("v1", "things", Named), "x")


async def test_a_list_whose_pages_expired_is_read_in_one_piece() -> None:
    async with running() as setup:
        setup.http.page = 1
        for name in "abc":
            setup.http.api.put("resourceslices", {"metadata": {"name": name}})
        whole = msgspec.json.encode({"metadata": {"resourceVersion": "1", "continue": "1"}, "items": [{"metadata": {"name": "a"}}]})
        setup.http.answers += [(200, {}, whole), (410, {}, status(410, "Expired"))]
        listing = await setup.api.list(SLICES)
        assert [one["metadata"]["name"] for one in listing.items] == ["a", "b", "c"]


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, *, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "kubernetes").configure_cert(context)
    if clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def ca_of(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


async def test_the_given_authority_is_trusted_and_no_other(authority: trustme.CA) -> None:
    async with running(tls=server_side(authority), ca_pem=ca_of(authority)) as setup:
        await setup.api.list(SLICES)
    async with running(tls=server_side(authority), ca_pem=ca_of(trustme.CA())) as setup:
        with pytest.raises(Unavailable, match="certificate"):
            await setup.api.list(SLICES)
    async with running(tls=server_side(authority), ca_pem=ca_of(authority), server_name="kubernetes") as setup:
        await setup.api.list(SLICES)
    async with running(tls=server_side(authority), ca_pem=ca_of(authority), server_name="somebody-else") as setup:
        with pytest.raises(Unavailable):
            await setup.api.list(SLICES)
    async with running(tls=server_side(authority), insecure=True) as setup:
        await setup.api.list(SLICES)


async def test_a_client_certificate_is_shown_and_its_successor_used(authority: trustme.CA) -> None:
    def client() -> dict[str, str]:
        issued = authority.issue_cert("node@example.org")
        chain = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
        return {"cert_pem": chain, "key_pem": issued.private_key_pem.bytes().decode()}

    async with running(tls=server_side(authority, clients=True), ca_pem=ca_of(authority), **client()) as setup:
        await setup.api.list(SLICES)
        setup.http.api.put("resourceslices", BODY)
        async with contextlib.aclosing(setup.api.watch(SLICES, resource_version="0")) as events:
            await anext(events)
            setup.credentials.transport = msgspec.structs.replace(setup.credentials.transport, **client())
            await setup.api.list(SLICES)
            # The watch began under the old one and goes on.
            setup.http.api.remove("resourceslices", "x")
            assert (await anext(events)).type == "DELETED"
        assert setup.http.connections == 3


async def test_broken_certificates_are_told(authority: trustme.CA) -> None:
    api = HttpKubeApi(Rotating(Transport("https://127.0.0.1:1", ca_pem="not one")), user_agent="t", random=lambda: 0.5)
    with pytest.raises(Unavailable, match="cannot use the certificates"):
        await api.list(SLICES)


def test_keys_appear_in_no_representation_and_no_file_stays_open(authority: trustme.CA) -> None:
    issued = authority.issue_cert("x")
    key = issued.private_key_pem.bytes().decode()
    transport = Transport("https://x", cert_pem=issued.cert_chain_pems[0].bytes().decode(), key_pem=key)
    assert "PRIVATE" not in repr(transport) + repr(Identity(transport, "Bearer secret"))
    assert "secret" not in repr(Identity(transport, "Bearer secret"))
    tls.context_of(transport)
