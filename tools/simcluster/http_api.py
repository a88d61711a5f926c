"""The registry behind HTTP, as an ASGI application."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
import yaml
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tools.simcluster import applied, discovery, patches, refusals, selectors, shapes, typed, watching
from tools.simcluster.classic import types as classic_types
from tools.simcluster.faults import Fault, Faults, reason_of
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.target import Target

_PATH: Final = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?/?"
)
_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_JSON: Final = "application/json"


class HttpApi:
    """`bookmark_seconds` may be lowered by tests of clients that wait for bookmarks."""

    def __init__(self, registry: Registry, faults: Faults) -> None:
        self.registry, self.faults = registry, faults
        self.bookmark_seconds = watching.BOOKMARK_SECONDS
        self.log: Callable[[str], None] | None = None
        """Called with one line a request."""
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = Request(scope, receive)
        self.requests += 1
        try:
            response = await self._answer(request)
        except Refused as refused:
            headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
            response = _json(refused.status(), refused.code, headers)
        except ClientDisconnect:
            return
        if self.log is not None:
            self.log(f"{request.method} {request.url.path}{'?' + request.url.query if request.url.query else ''} {response.status_code}")
        await response(scope, receive, send)

    # --- routing -----------------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        path, query = request.url.path, request.query_params
        if path.startswith("/simcluster/"):
            return await self._control(request)
        match = _PATH.fullmatch(path)
        verb, resource = _verb(request, match)
        fault = self.faults.next(verb, resource, request.headers.get("user-agent", ""))
        if fault is not None:
            if fault.delay_seconds:
                await trio.sleep(fault.delay_seconds)
            if fault.drop == "before":
                return _Broken()
            if fault.status:
                raise Refused(fault.status, reason_of(fault), fault.message, retry_after=fault.retry_after)
        if match is None or (match["plural"] == "namespaces" and match["sub"] and match["sub"] != "status"):
            return self._discover(path)
        target = self._target(match)
        response = await self._serve(request, target, verb, dict(query))
        return _Broken() if fault is not None and fault.drop == "after" else response

    def _target(self, match: re.Match[str]) -> Target:
        group, version = match["group"] or "", match["version"] or match["core"]
        served = self.registry.served().get(group, {}).get(version, ())
        kind = next((kind for kind in served if kind.plural == match["plural"]), None)
        subresource = match["sub"] or ""
        if kind is None or (subresource and not (subresource == "status" and kind.has_status)):
            raise refusals.no_such_path()
        if match["namespace"] and not kind.namespaced:
            raise refusals.no_such_path()
        return Target(kind, version, match["namespace"] or "", match["name"] or "", subresource)

    def _discover(self, path: str) -> Response:
        served = self.registry.served()
        steps = [step for step in path.split("/") if step]
        found: Json | None = None
        if path in _HEALTH:
            return Response("ok")
        match steps:
            case ["version"]:
                found = discovery.version(self.registry.release)
            case ["api"]:
                found = discovery.core_versions()
            case ["api", version]:
                found = discovery.resources(served, "", version)
            case ["apis"]:
                found = discovery.groups(served)
            case ["apis", group]:
                found = discovery.group(served, group)
            case ["apis", group, version]:
                found = discovery.resources(served, group, version)
        if found is None:
            raise refusals.no_such_path()
        return _json(found)

    async def _control(self, request: Request) -> Response:
        action = request.url.path.removeprefix("/simcluster/").removeprefix("faults").strip("/")
        match request.method, action:
            case "POST", "":
                try:
                    self.faults.add(msgspec.json.decode(await request.body(), type=Fault))
                except msgspec.DecodeError as error:
                    raise refusals.bad_request(str(error)) from error
            case "DELETE", "":
                self.faults.clear()
            case "POST", "cut-watches":
                self.faults.cut_watches()
            case "POST", "compact":
                self.registry.store.compact()
            case "GET", "":
                pass
            case _:
                raise refusals.no_such_path()
        return _json({"faults": msgspec.to_builtins(self.faults.list)})

    # --- verbs -------------------------------------------------------------------------------------------------------------------

    async def _serve(self, request: Request, target: Target, verb: str, query: dict[str, str]) -> Response:
        registry, kind = self.registry, target.kind
        dry_run = _dry_run(query)
        match verb:
            case "get":
                return _json(target.wire(registry.get(kind, target.name, target.namespace)))
            case "list":
                return self._list(target, query)
            case "watch":
                return self._watch(target, query)
            case "create":
                if target.name:
                    raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
                if kind.namespaced and not target.namespace:
                    raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
                held = registry.create(kind, self._held(target, await _body(request)), target.namespace, dry_run=dry_run)
                return _json(target.wire(held), 201)
            case "update":
                body = self._held(target, await _body(request))
                held = registry.replace(kind, target.name, body, target.namespace, subresource=target.subresource, dry_run=dry_run)
                return _json(target.wire(held))
            case "patch":
                return await self._patch(request, target, query, dry_run)
            case "delete":
                return self._delete(target, await _options(request), query, dry_run)
            case "deletecollection":
                await _options(request)
                gone = [
                    registry.delete(kind, held["metadata"]["name"], held["metadata"].get("namespace", ""), dry_run=dry_run)
                    for held in self._selected(target, query)
                ]
                return _json(_list_of(target, gone, registry.store.revision))
        raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _held(self, target: Target, body: Any) -> Json:
        if not isinstance(body, dict):
            raise refusals.bad_request("the object provided is unrecognized (must be of type Object)")
        wanted = shapes.api_version(target.kind, target.version)
        if body.get("apiVersion", wanted) != wanted or body.get("kind", target.kind.kind) != target.kind.kind:
            said = f"{body.get('apiVersion')} {body.get('kind')}"
            raise refusals.bad_request(f"the API version in the data ({said}) does not match the expected ({wanted} {target.kind.kind})")
        try:
            held = shapes.to_held(target.kind, target.version, body)
        except (AttributeError, TypeError, KeyError) as error:
            raise refusals.bad_request(f"{target.kind.kind} in version {target.version!r} cannot be handled: {error}") from error
        return typed.checked(target.kind, held, classic_types.TYPES if target.version == "v1alpha2" else typed.TYPES)

    def _selected(self, target: Target, query: dict[str, str]) -> list[Json]:
        by_field = selectors.by_field(target.kind, query.get("fieldSelector", ""), self.registry.release)
        by_label = selectors.by_label(query.get("labelSelector", ""))
        return [held for held in self.registry.store.all(target.kind, target.namespace) if by_field(held) and by_label(held)]

    def _list(self, target: Target, query: dict[str, str]) -> Response:
        store = self.registry.store
        _not_ahead(query.get("resourceVersion", ""), store.revision)
        if token := query.get("continue", ""):
            revision, found = store.snapshot(token)
        else:
            revision, found = store.revision, self._selected(target, query)
        limit = _number("limit", query.get("limit")) or 0
        rest: list[Json] = []
        if limit and len(found) > limit:
            found, rest = found[:limit], found[limit:]
        more = {"continue": store.keep_snapshot(rest, revision), "remainingItemCount": len(rest)} if rest else {}
        return _json(_list_of(target, found, revision, more))

    async def _patch(self, request: Request, target: Target, query: dict[str, str], dry_run: bool) -> Response:
        registry, kind = self.registry, target.kind
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        body = await _body(request)
        old = registry.store.get(kind, target.namespace, target.name)
        if media == "application/apply-patch+yaml" and old is None and not target.subresource:
            now: Json = {"metadata": {"name": target.name}}
        else:
            now = target.wire(registry.get(kind, target.name, target.namespace))
        match media:
            case "application/merge-patch+json":
                new = patches.merge(now, body)
            case "application/strategic-merge-patch+json":
                new = patches.strategic(now, body)
            case "application/json-patch+json":
                new = patches.json_patch(now, body)
            case "application/apply-patch+yaml":
                self._held(target, body)
                new = applied.apply(
                    kind,
                    target.name,
                    now,
                    body,
                    manager=query.get("fieldManager", ""),
                    force=query.get("force") == "true",
                    subresource=target.subresource,
                    version=shapes.api_version(kind, target.version),
                    at=registry.timestamp(),
                )
            case _:
                raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {media}")
        held = self._held(target, new)
        if old is None:
            return _json(target.wire(registry.create(kind, held, target.namespace, dry_run=dry_run)), 201)
        # A patch that names no version applies to whatever is there.
        stored = registry.replace(kind, target.name, held, target.namespace, subresource=target.subresource, dry_run=dry_run)
        return _json(target.wire(stored))

    def _delete(self, target: Target, options: Json, query: dict[str, str], dry_run: bool) -> Response:
        only_if = options.get("preconditions") or {}
        if not isinstance(only_if, dict):
            raise refusals.bad_request("DeleteOptions cannot be handled: preconditions is not an object")
        grace = _number("gracePeriodSeconds", options.get("gracePeriodSeconds", query.get("gracePeriodSeconds")))
        kind = target.kind
        gone = self.registry.delete(
            kind,
            target.name,
            target.namespace,
            uid=only_if.get("uid") or "",
            resource_version=only_if.get("resourceVersion") or "",
            grace_seconds=grace,
            dry_run=dry_run or options.get("dryRun") == ["All"],
        )
        held_back = gone["metadata"].get("finalizers")
        if kind.returns_deleted or held_back:
            return _json(target.wire(gone))
        return _json(refusals.success(kind, target.name, gone["metadata"]["uid"]))

    def _watch(self, target: Target, query: dict[str, str]) -> Response:
        store = self.registry.store
        field_text = f"metadata.name={target.name}" if target.name else query.get("fieldSelector", "")
        by_field = selectors.by_field(target.kind, field_text, self.registry.release)
        by_label = selectors.by_label(query.get("labelSelector", ""))

        def selects(held: Json) -> bool:
            inside = not target.namespace or held["metadata"].get("namespace") == target.namespace
            return inside and by_field(held) and by_label(held)

        version = query.get("resourceVersion", "")
        _not_ahead(version, store.revision)
        watch = watching.Watch(
            store,
            target,
            selects,
            after=None if version in ("", "0") or query.get("sendInitialEvents") == "true" else int(version),
            seconds=_number("timeoutSeconds", query.get("timeoutSeconds")) or random.uniform(*watching.WATCH_SECONDS),
            bookmark_seconds=self.bookmark_seconds if query.get("allowWatchBookmarks") == "true" else None,
            tells_end_of_initial=query.get("sendInitialEvents") == "true",
            cut=self.faults.cut,
        )
        return StreamingResponse(watch.lines(), media_type=_JSON)


def _list_of(target: Target, found: list[Json], revision: int, more: Json | None = None) -> Json:
    return {
        "kind": f"{target.kind.kind}List",
        "apiVersion": shapes.api_version(target.kind, target.version),
        "metadata": {"resourceVersion": str(revision), **(more or {})},
        "items": [target.wire(held) for held in found],
    }


def _verb(request: Request, match: re.Match[str] | None) -> tuple[str, str]:
    if match is None:
        return "discovery", ""
    resource = match["plural"] + (f"/{match['sub']}" if match["sub"] else "")
    named = match["name"] is not None
    match request.method:
        case "GET" | "HEAD":
            if request.query_params.get("watch") in ("true", "1"):
                return "watch", resource
            return ("get" if named else "list"), resource
        case "DELETE":
            return ("delete" if named else "deletecollection"), resource
        case method:
            return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower()), resource


def _dry_run(query: dict[str, str]) -> bool:
    said = query.get("dryRun")
    if said not in (None, "", "All"):
        raise refusals.bad_request(f"dryRun: Unsupported value: {said!r}: supported values: All")
    return said == "All"


def _number(name: str, said: Any) -> int | None:
    if said in (None, ""):
        return None
    if not str(said).isdigit():
        raise refusals.bad_request(f"{name}: Invalid value: {said!r}: must be a number, 0 or more")
    return int(said)


def _not_ahead(version: str, revision: int) -> None:
    if version and not version.isdigit():
        raise refusals.bad_request(f"resourceVersion: Invalid value: {version!r}: strconv.ParseUint: invalid syntax")
    if version and int(version) > revision:
        raise Refused(504, "Timeout", f"Too large resource version: {version}, current: {revision}", retry_after=1)


async def _body(request: Request) -> Any:
    data = await request.body()
    try:
        if "yaml" in request.headers.get("content-type", "") and not data.lstrip().startswith(b"{"):
            return yaml.safe_load(data)
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise refusals.bad_request(f"the object provided is unrecognized: {error}") from error


async def _options(request: Request) -> Json:
    if not await request.body():
        return {}
    body = await _body(request)
    return body if isinstance(body, dict) else {}


def _json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, media_type=_JSON, headers=headers)


class _Broken(Response):
    """An answer that breaks off: the header promises more than comes, and then the connection ends."""

    def __init__(self) -> None:
        super().__init__(b"", media_type=_JSON, headers={"content-length": "100000"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionError("fault injected: the connection is dropped")
