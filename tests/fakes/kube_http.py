"""The fake API server behind HTTP/1.1 on a loopback port, for the real edge to talk to; and misbehaviour that only HTTP knows."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec
import trio

from nursery_apps.seams import ApiError, Resource
from tests.fakes.kube_api import FakeKubeApi

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>status))?"
)


class KubeHttp:
    def __init__(self, api: FakeKubeApi) -> None:
        self.api = api
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """(method, target, headers)"""
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        """Given instead of the real ones, in order; status 0 closes the connection without a word."""
        self.page = 0
        """Objects of a page where the client asks for pages; 0 for all."""
        self.chunk = 1 << 16
        """Watch events are sent in pieces of so many bytes."""
        self.silent = False
        """Take requests and never answer."""
        self.port = 0
        self.connections = 0

    async def serve(self, tls: ssl.SSLContext | None = None, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, lambda stream: self._connection(stream, tls), [listener])
            self.port = listener.socket.getsockname()[1]
            task_status.started(f"{'https' if tls else 'http'}://127.0.0.1:{self.port}")

    async def _connection(self, plain: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        self.connections += 1
        stream: Any = trio.SSLStream(plain, tls, server_side=True, https_compatible=True) if tls else plain
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, _HangUp):
            connection = h11.Connection(h11.SERVER)
            while True:
                request, body = await self._request(stream, connection)
                if request is None:
                    break
                await self._answer(stream, connection, request, body)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        await trio.aclose_forcefully(stream)

    async def _request(self, stream: Any, connection: h11.Connection) -> tuple[h11.Request | None, bytes]:
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return request, body
            else:
                return None, b""

    async def _answer(self, stream: Any, connection: h11.Connection, request: h11.Request, body: bytes) -> None:
        method, target = request.method.decode(), request.target.decode()
        self.requests.append((method, target, {key.decode().lower(): value.decode() for key, value in request.headers}))
        if self.silent:
            await trio.sleep_forever()
        if self.answers:
            status, headers, content = self.answers.pop(0)
            if not status:
                raise _HangUp
            return await self._send(stream, connection, status, content, headers)
        at = urlsplit(target)
        query = dict(parse_qsl(at.query))
        try:
            if query.get("watch"):
                return await self._watch(stream, connection, at.path, query)
            result = await self._call(method, at.path, query, body, request)
        except ApiError as error:
            return await self._refuse(stream, connection, error)
        return await self._send(stream, connection, 201 if method == "POST" else 200, msgspec.json.encode(result))

    async def _call(self, method: str, path: str, query: dict[str, str], body: bytes, request: h11.Request) -> Any:
        if path in ("/version", "/apis/resource.k8s.io") or re.fullmatch(r"/apis/resource.k8s.io/[^/]+", path):
            return await self._discovery(path)
        what, namespace, name = _target(path)
        match method:
            case "GET" if name:
                return await self.api.get(what, name, namespace=namespace)
            case "GET":
                return await self._list(what, namespace, query)
            case "POST":
                return await self.api.create(what, msgspec.json.decode(body), namespace=namespace, dry_run="dryRun" in query)
            case "PUT":
                return await self.api.replace(what, msgspec.json.decode(body), namespace=namespace)
            case "PATCH":
                kind = dict(request.headers)[b"content-type"].decode()
                part = "status" if path.endswith(f"/{name}/status") else ""
                return await self.api.patch(what, name, msgspec.json.decode(body), content_type=kind, namespace=namespace, subresource=part)
            case "DELETE":
                only_if = msgspec.json.decode(body).get("preconditions", {})
                uid, version = only_if.get("uid", ""), only_if.get("resourceVersion", "")
                await self.api.delete(what, name, namespace=namespace, uid=uid, resource_version=version)
                return {"kind": "Status", "status": "Success"}
        raise AssertionError(method)

    async def _list(self, what: Resource[Any], namespace: str, query: dict[str, str]) -> Any:
        listing = await self.api.list(what, namespace=namespace, field_selector=query.get("fieldSelector", ""))
        start = int(query.get("continue", 0))
        stop = start + self.page if self.page and "limit" in query else len(listing.items)
        metadata = {"resourceVersion": listing.resource_version, **({"continue": str(stop)} if stop < len(listing.items) else {})}
        return {"metadata": metadata, "items": listing.items[start:stop] or None}

    async def _discovery(self, path: str) -> Any:
        offer = await self.api.served()
        if path == "/version":
            return {"gitVersion": offer.server_version}
        if path == "/apis/resource.k8s.io":
            if not offer.resources:
                raise ApiError(404, "NotFound", "not found")
            return {"versions": [{"version": version, "groupVersion": f"resource.k8s.io/{version}"} for version, _ in offer.resources]}
        plurals = dict(offer.resources)[path.rpartition("/")[2]]
        return {"resources": [{"name": name} for plural in plurals for name in (plural, f"{plural}/status")]}

    async def _watch(self, stream: Any, connection: h11.Connection, path: str, query: dict[str, str]) -> None:
        what, namespace, _ = _target(path)
        events = self.api.watch(
            what, namespace=namespace, field_selector=query.get("fieldSelector", ""), resource_version=query["resourceVersion"]
        )
        headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        async with contextlib.aclosing(events):
            try:
                await stream.send_all(connection.send(h11.Response(status_code=200, headers=headers)))
                async for event in events:
                    found = event.object if event.object is not None else {"metadata": {"resourceVersion": event.resource_version}}
                    line = msgspec.json.encode({"type": event.type, "object": found}) + b"\n"
                    for start in range(0, len(line), self.chunk):
                        await stream.send_all(connection.send(h11.Data(data=line[start : start + self.chunk])))
            except ApiError as error:
                line = msgspec.json.encode({"type": "ERROR", "object": _status(error)}) + b"\n"
                await stream.send_all(connection.send(h11.Data(data=line)))
            await stream.send_all(connection.send(h11.EndOfMessage()))

    async def _refuse(self, stream: Any, connection: h11.Connection, error: ApiError) -> None:
        headers = {"Retry-After": str(int(error.retry_after_seconds))} if error.retry_after_seconds else {}
        await self._send(stream, connection, error.status, msgspec.json.encode(_status(error)), headers)

    async def _send(
        self, stream: Any, connection: h11.Connection, status: int, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        fields = [*(headers or {}).items(), ("Content-Length", str(len(content)))]
        data = connection.send(h11.Response(status_code=status, headers=fields)) or b""
        data += (connection.send(h11.Data(data=content)) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        await stream.send_all(data)


class _HangUp(Exception):
    pass


def _status(error: ApiError) -> dict[str, Any]:
    return {"kind": "Status", "code": error.status, "reason": error.reason, "message": error.message}


def _target(path: str) -> tuple[Resource[Any], str, str]:
    match = _PATH.fullmatch(path)
    assert match is not None, path
    what: Resource[Any] = Resource(match["core"] or match["group"], match["plural"], dict, namespaced=bool(match["ns"]))
    return what, match["ns"] or "", match["name"] or ""


@contextlib.asynccontextmanager
async def serving(http: KubeHttp, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address it serves at."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(http.serve, tls)
        nursery.cancel_scope.cancel()
