"""`KubeApi` over HTTP/1.1: httpcore on Trio, msgspec for what is inside.

Reads that met a connection the server was just closing are sent once more; writes never are.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpcore
import msgspec
import trio

from nursery_apps import kube_wire
from nursery_apps.credentials import Credentials
from nursery_apps.edges.kube_link import LOST, Link, describe
from nursery_apps.seams import (
    Gone,
    Invalid,
    Listing,
    NotFound,
    Resource,
    ServedApi,
    Unavailable,
    Watched,
)

T = TypeVar("T")

CALL_DEADLINE_SECONDS: Final = 30.0
"""The API server gives up on an ordinary request after 60 s; half of it leaves the kubelet's 45 s room for a second try."""
PAGE: Final = 500
"""Objects of a page, as client-go's."""
ANSWER_BYTES: Final = 256 << 20
"""500 objects at etcd's limit of 1.5 MB would be three times this, and no real page comes near a tenth."""
WATCH_SECONDS: Final = (300.0, 600.0)
"""A watch is asked to last between these, spread so that a thousand nodes do not renew theirs together; client-go's numbers."""
WATCH_SLACK_SECONDS: Final = 30.0
"""How much longer a silent watch is believed to live: the server ends it at the time asked for."""


class HttpKubeApi:
    """The real `nursery_apps.seams.KubeApi`. `aclose` it when the last call has ended."""

    def __init__(self, credentials: Credentials, *, user_agent: str, random: Callable[[], float]) -> None:
        self._credentials = credentials
        self._user_agent = user_agent
        self._random = random
        self._link: Link | None = None
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

    async def aclose(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    # --- reading

    async def served(self) -> ServedApi:
        git_version = kube_wire.decode(await self._call("GET", "/version"), kube_wire.Version).git_version
        try:
            group = kube_wire.decode(await self._call("GET", "/apis/resource.k8s.io"), kube_wire.Group)
        except NotFound:
            return ServedApi(git_version, ())
        found: list[tuple[str, tuple[str, ...]]] = []
        for one in group.versions or []:
            # A version may be switched off between the two questions.
            with contextlib.suppress(NotFound):
                listed = kube_wire.decode(await self._call("GET", f"/apis/resource.k8s.io/{quote(one.version)}"), kube_wire.ServedList)
                found.append((one.version, tuple(entry.name for entry in listed.resources or [] if "/" not in entry.name)))
        return ServedApi(git_version, tuple(found))

    async def get(self, what: Resource[T], name: str, *, namespace: str = "") -> T:
        return self._object(what, await self._call("GET", kube_wire.path(what, namespace, name)))

    async def list(self, what: Resource[T], *, namespace: str = "", field_selector: str = "", label_selector: str = "") -> Listing[T]:
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        items: list[T] = []
        query = {**selectors, "limit": str(PAGE)}
        while True:
            try:
                page = kube_wire.decode(await self._call("GET", kube_wire.path(what, namespace), query), kube_wire.Page)
            except Gone:
                if "continue" not in query:
                    raise
                # The pages took longer than etcd keeps a snapshot: once more, in one piece, which cannot run out.
                items, query = [], selectors
                continue
            items += [self._object(what, raw) for raw in page.items or []]
            if not page.metadata.next_page:
                return Listing(items, page.metadata.resource_version)
            query = {**selectors, "limit": str(PAGE), "continue": page.metadata.next_page}

    async def watch(
        self, what: Resource[T], *, namespace: str = "", field_selector: str = "", resource_version: str
    ) -> AsyncGenerator[Watched[T], None]:
        seconds = WATCH_SECONDS[0] + self._random() * (WATCH_SECONDS[1] - WATCH_SECONDS[0])
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(seconds)),
        }
        link, response = await self._open(kube_wire.path(what, namespace), query)
        deadline = trio.current_time() + seconds + WATCH_SLACK_SECONDS
        chunks = response.aiter_stream()
        lines = kube_wire.Lines()
        try:
            while True:
                try:
                    with trio.fail_at(deadline):
                        chunk = await anext(chunks, None)
                except (trio.TooSlowError, *LOST) as error:
                    raise Unavailable(0, "WatchLost", f"watch of {what.plural}: {describe(error)}") from error
                if chunk is None:
                    return
                for line in lines.feed(chunk):
                    yield self._event(what, line)
        finally:
            # Ended by cancelling a read: httpcore's own generators run to their end instead of being left to the garbage collector.
            with trio.CancelScope() as cut:
                cut.cancel()
                with contextlib.suppress(*LOST):
                    async for _ in chunks:  # noqa: ASYNC102
                        pass
            await self._leave(link)  # noqa: ASYNC102

    # --- writing

    async def create(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "", dry_run: bool = False) -> T:
        query = {"dryRun": "All"} if dry_run else {}
        return self._object(what, await self._call("POST", kube_wire.path(what, namespace), query, body))

    async def replace(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "") -> T:
        return self._object(what, await self._call("PUT", kube_wire.path(what, namespace, body["metadata"]["name"]), {}, body))

    async def patch(
        self, what: Resource[T], name: str, body: object, *, content_type: str, namespace: str = "", subresource: str = ""
    ) -> T:
        path = kube_wire.path(what, namespace, name) + (f"/{subresource}" if subresource else "")
        # Server-side apply wants to know who applies; the other kinds of patch take the name for managedFields too.
        query = {"fieldManager": self._user_agent.partition("/")[0]}
        return self._object(what, await self._call("PATCH", path, query, body, content_type))

    async def delete(self, what: Resource[T], name: str, *, namespace: str = "", uid: str = "", resource_version: str = "") -> None:
        only_if = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        await self._call("DELETE", kube_wire.path(what, namespace, name), {}, {"preconditions": only_if} if only_if else {})

    # --- the wire

    def _object(self, what: Resource[T], data: bytes | bytearray | msgspec.Raw) -> T:
        decoder = self._decoders.get(what.type)
        if decoder is None:
            decoder = self._decoders[what.type] = msgspec.json.Decoder(what.type)
        try:
            found: T = decoder.decode(data)
        except msgspec.ValidationError as error:
            raise Invalid(0, "Undecodable", f"an object of {what.group_version} {what.plural} is not as expected: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(0, "Undecodable", f"{what.plural}: the answer is not JSON: {error}") from error
        return found

    def _event(self, what: Resource[T], line: bytes | bytearray) -> Watched[T]:
        event = kube_wire.decode(line, kube_wire.Event)
        if event.type == "ERROR":
            status = kube_wire.decode(event.object, kube_wire.Status)
            raise kube_wire.refusal(status.code or 0, status)
        version = kube_wire.decode(event.object, kube_wire.Versioned).metadata.resource_version
        return Watched(event.type, None if event.type == "BOOKMARK" else self._object(what, event.object), version)

    async def _call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None, content_type: str = "application/json"
    ) -> bytes:
        """One request, one answer; a success's body."""
        content = msgspec.json.encode(body) if body is not None else None
        try:
            with trio.fail_after(CALL_DEADLINE_SECONDS):
                return await self._authorized(method, path, query or {}, content, content_type)
        except trio.TooSlowError as error:
            raise Unavailable(0, "Timeout", f"{method} {path}: no answer within {CALL_DEADLINE_SECONDS:.0f} s") from error

    async def _authorized(self, method: str, path: str, query: Mapping[str, str], content: bytes | None, content_type: str) -> bytes:
        headers = {"Content-Type": content_type} if content is not None else {}
        tries_left = 1
        while True:
            link, authorization = await self._enter()
            try:
                request = link.request(method, path, query, self._headers(link, authorization, headers), content)
                response = await link.calls.handle_async_request(request)
                try:
                    answer = await _read(response)
                finally:
                    await response.aclose()
            except LOST as error:
                # A connection that idled may have been closed at the other end at this very moment; asking again is free.
                if method == "GET" and tries_left and not isinstance(error, httpcore.ConnectError):
                    tries_left -= 1
                    continue
                raise Unavailable(0, "Unreachable", f"{method} {link.origin}{path}: {describe(error)}") from error
            finally:
                await self._leave(link)  # noqa: ASYNC102
            if response.status < 300:
                return answer
            if response.status == 401 and tries_left:
                tries_left -= 1
                self._credentials.refused()
                continue
            raise kube_wire.refusal(response.status, kube_wire.status_of(answer), response.headers)

    async def _open(self, path: str, query: Mapping[str, str]) -> tuple[Link, httpcore.Response]:
        """Start a watch; the caller closes the response and leaves the link."""
        for last in (False, True):
            link, authorization = await self._enter()
            try:
                with trio.fail_after(CALL_DEADLINE_SECONDS):
                    request = link.request("GET", path, query, self._headers(link, authorization, {}), None)
                    response = await link.watches.handle_async_request(request)
                    if response.status < 300:
                        return link, response
                    try:
                        answer = await _read(response)
                    finally:
                        await response.aclose()
                await self._leave(link)
            except (trio.TooSlowError, *LOST) as error:
                await self._leave(link)  # noqa: ASYNC120
                raise Unavailable(0, "Unreachable", f"watch {link.origin}{path}: {describe(error)}") from error
            except BaseException:
                await self._leave(link)  # noqa: ASYNC102
                raise
            if response.status != 401 or last:
                break
            self._credentials.refused()
        raise kube_wire.refusal(response.status, kube_wire.status_of(answer), response.headers)

    def _headers(self, link: Link, authorization: str | None, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Host": link.host, "Accept": "application/json", "User-Agent": self._user_agent, **more}
        return {**headers, "Authorization": authorization} if authorization else headers

    async def _enter(self) -> tuple[Link, str | None]:
        """The link to use, new if the credentials' certificates changed; the old one lives until its last user is gone."""
        identity = await self._credentials.identity()
        old = link = self._link
        if link is None or link.transport != identity.transport:
            try:
                link = self._link = Link(identity.transport)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise Unavailable(0, "NoCredentials", f"cannot use the certificates for {identity.transport.server}: {error}") from error
        link.users += 1
        if old is not None and old is not link:
            old.retired = True
            if not old.users:
                await old.aclose()
        return link, identity.authorization

    async def _leave(self, link: Link) -> None:  # also while cancelled: httpcore shields the closing of its pools
        link.users -= 1
        if link.retired and not link.users:
            await link.aclose()


async def _read(response: httpcore.Response) -> bytes:
    answer = bytearray()
    async for chunk in response.aiter_stream():
        if len(answer) < ANSWER_BYTES:
            answer += chunk
    if len(answer) >= ANSWER_BYTES:
        raise Unavailable(response.status, "TooLong", f"an answer of more than {ANSWER_BYTES >> 20} MiB")
    return bytes(answer)
