"""An API server in memory that keeps the promises of `KubeApi`: versions, conflicts, watches with bookmarks, expiry, dropped fields."""

from __future__ import annotations

import copy
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import msgspec
import trio

from nursery_apps.seams import ApiError, Conflict, Gone, Invalid, Listing, NotFound, Resource, ServedApi, Throttled, Unavailable, Watched

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace, name."""

WITH_STATUS = frozenset({"resourceclaims", "podschedulingcontexts"})
"""Kinds whose status is a subresource."""
ERRORS: Sequence[ApiError] = (
    Conflict(409, "Conflict", "x"),
    Gone(410, "Expired", "x"),
    Throttled(429, "TooManyRequests", "x", retry_after_seconds=1),
    Unavailable(503, "ServiceUnavailable", "x"),
)
"""What a call may be answered at random."""
ALL_PLURALS = ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices")


class FakeKubeApi:
    """Objects are kept by plural, whatever the version they are written in: who needs conversion needs a real server."""

    def __init__(self, *, server_version: str = "v1.34.3", versions: Iterable[str] = ("v1",)) -> None:
        self.offer = ServedApi(server_version, tuple((version, ALL_PLURALS) for version in versions))
        self.objects: dict[Key, Json] = {}
        self.version = 100
        self.oldest = 0
        """Watches from before this resourceVersion are answered 410."""
        self.calls: list[tuple[str, str, str]] = []
        """(verb, plural, name), as they came."""
        self.failures: list[tuple[str, ApiError]] = []
        """(verb, error): raised once at the next call of that verb, in order."""
        self.on_store: Callable[[str, Json], None] = lambda plural, body: None
        """Changes what is stored, as a server with a feature gate off does."""
        self.unserved: set[str] = set()
        """Plurals of other groups whose definitions nobody has installed."""
        self.generated = 0
        self._applied: dict[Key, set[tuple[str, ...]]] = {}
        self._history: list[tuple[int, str, str, Json]] = []
        self._changed = trio.Event()
        self._cut = trio.Event()
        self._bookmarks: set[int] = set()

    # --- the test's own verbs

    def put(self, plural: str, body: Json, *, namespace: str = "") -> Json:
        """Create or change an object as somebody else."""
        metadata = body.setdefault("metadata", {})
        key = (plural, namespace, metadata["name"])
        if namespace:
            metadata["namespace"] = namespace
        metadata.setdefault(
            "uid", self.objects[key]["metadata"]["uid"] if key in self.objects else f"uid-{metadata['name']}-{self.version}"
        )
        return self._store("MODIFIED" if key in self.objects else "ADDED", key, copy.deepcopy(body))

    def remove(self, plural: str, name: str, *, namespace: str = "") -> None:
        self._store("DELETED", (plural, namespace, name), self.objects[plural, namespace, name])

    def of(self, plural: str) -> list[Json]:
        return [body for (kind, _, _), body in sorted(self.objects.items()) if kind == plural]

    def bookmark(self) -> None:
        """Tell every watch how far it is."""
        self.version += 1
        self._bookmarks.add(self.version)
        self._history.append((self.version, "BOOKMARK", "", {"metadata": {"resourceVersion": str(self.version)}}))
        self._wake()

    def expire(self) -> None:
        """Forget history: watches from before are answered 410, running ones end."""
        self.version += 1
        self.oldest = self.version
        self.cut()

    def cut(self) -> None:
        """End every running watch, as a server that restarts does."""
        self._cut.set()
        self._cut = trio.Event()

    def backup(self) -> tuple[dict[Key, Json], int]:
        return copy.deepcopy(self.objects), self.version

    def restore(self, backup: tuple[dict[Key, Json], int]) -> None:
        """Come back as the server was then; a watch from a version of its future is told nothing until it gets there."""
        self.objects, self.version = copy.deepcopy(backup[0]), backup[1]
        self._history = [entry for entry in self._history if entry[0] <= self.version]
        self.cut()

    # --- KubeApi

    async def served(self) -> ServedApi:
        await self._begin("served")
        return self.offer

    async def get(self, what: Resource[Any], name: str, *, namespace: str = "") -> Any:
        await self._begin("get", what, name)
        return self._decoded(what, self._found(what, namespace, name))

    async def list(self, what: Resource[Any], *, namespace: str = "", field_selector: str = "", label_selector: str = "") -> Listing[Any]:
        await self._begin("list", what)
        found = [
            self._decoded(what, body)
            for (plural, where, _), body in sorted(self.objects.items())
            if plural == what.plural and namespace in ("", where) and _matches(body, field_selector) and _labelled(body, label_selector)
        ]
        return Listing(found, str(self.version))

    async def watch(
        self, what: Resource[Any], *, namespace: str = "", field_selector: str = "", resource_version: str
    ) -> AsyncGenerator[Watched[Any], None]:
        await self._begin("watch", what)
        if int(resource_version) < self.oldest:
            raise Gone(410, "Expired", f"too old resource version: {resource_version} ({self.oldest})")
        seen, cut = int(resource_version), self._cut
        while True:
            for version, kind, where, body in [entry for entry in self._history if entry[0] > seen]:
                seen = version
                if kind == "BOOKMARK":
                    yield Watched("BOOKMARK", None, str(version))
                elif where == what.plural and namespace in ("", body["metadata"].get("namespace", "")) and _matches(body, field_selector):
                    yield Watched(kind, self._decoded(what, body), str(version))
            if cut.is_set():
                return
            async with trio.open_nursery() as either:

                async def first(event: trio.Event, scope: trio.CancelScope = either.cancel_scope) -> None:
                    await event.wait()
                    scope.cancel()

                if not any(entry[0] > seen for entry in self._history):
                    either.start_soon(first, self._changed)
                    either.start_soon(first, cut)

    async def create(self, what: Resource[Any], body: Json, *, namespace: str = "", dry_run: bool = False) -> Any:
        await self._begin("create", what, body["metadata"].get("name", ""))
        body = copy.deepcopy(body)
        metadata = body["metadata"]
        if "name" not in metadata:
            self.generated += 1
            metadata["name"] = f"{metadata['generateName'][:58]}{self.generated:05}"
        key = (what.plural, namespace, metadata["name"])
        if key in self.objects:
            raise Conflict(409, "AlreadyExists", f'{what.plural} "{metadata["name"]}" already exists')
        metadata |= {"uid": f"uid-{metadata['name']}-{self.version}", **({"namespace": namespace} if namespace else {})}
        self.on_store(what.plural, body)
        return self._decoded(what, body if dry_run else self._store("ADDED", key, body))

    async def replace(self, what: Resource[Any], body: Json, *, namespace: str = "") -> Any:
        name = body["metadata"]["name"]
        await self._begin("replace", what, name)
        stored = self._found(what, namespace, name)
        self._check(stored, body["metadata"].get("uid", ""), body["metadata"].get("resourceVersion", ""))
        body = copy.deepcopy(body)
        self.on_store(what.plural, body)
        return self._decoded(what, self._store("MODIFIED", (what.plural, namespace, name), body))

    async def patch(
        self, what: Resource[Any], name: str, body: object, *, content_type: str, namespace: str = "", subresource: str = ""
    ) -> Any:
        await self._begin("patch", what, name)
        stored = copy.deepcopy(self._found(what, namespace, name))
        if content_type == "application/apply-patch+yaml" and what.plural == "resourceclaims" and isinstance(body, dict):
            return self._decoded(what, self._apply((what.plural, namespace, name), stored, body))
        if content_type != "application/merge-patch+json" or not isinstance(body, dict):
            raise Invalid(415, "UnsupportedMediaType", f"{content_type} is not understood")
        asked = body.get("metadata") or {}
        self._check(stored, asked.get("uid", ""), asked.get("resourceVersion", ""))
        if what.plural in WITH_STATUS:
            # The status is written by its own path alone, and by that path nothing else is.
            body = {key: value for key, value in body.items() if (key == "status") is (subresource == "status")}
        _merge(stored, body)
        self.on_store(what.plural, stored)
        key = (what.plural, namespace, name)
        if stored["metadata"].get("deletionTimestamp") and not stored["metadata"].get("finalizers"):
            self._store("DELETED", key, stored)
            return self._decoded(what, stored)
        return self._decoded(what, self._store("MODIFIED", key, stored))

    def _apply(self, key: Key, stored: Json, body: Json) -> Json:
        """Server-side apply of a claim's `status.devices`, by one manager: what it applied before and names no more goes."""
        self._check(stored, body["metadata"].get("uid", ""), "")
        devices = {_entry_key(entry): entry for entry in body["status"]["devices"]}
        status = stored.setdefault("status", {})
        kept = [old for old in status.get("devices") or () if (at := _entry_key(old)) in devices or at not in self._applied.get(key, ())]
        merged = [_applied(old, devices.pop(_entry_key(old), {})) for old in kept]
        self._applied[key] = {_entry_key(entry) for entry in body["status"]["devices"]}
        status["devices"] = [*merged, *devices.values()]
        self.on_store(key[0], stored)
        return stored if stored == self.objects[key] else self._store("MODIFIED", key, stored)

    async def delete(self, what: Resource[Any], name: str, *, namespace: str = "", uid: str = "", resource_version: str = "") -> None:
        await self._begin("delete", what, name)
        found = self._found(what, namespace, name)
        self._check(found, uid, resource_version)
        if found["metadata"].get("finalizers"):
            metadata = {**found["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
            self._store("MODIFIED", (what.plural, namespace, name), {**found, "metadata": metadata})
        else:
            self.remove(what.plural, name, namespace=namespace)

    # --- inside

    async def _begin(self, verb: str, what: Resource[Any] | None = None, name: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append((verb, what.plural if what else "", name))
        for index, (when, error) in enumerate(self.failures):
            if when in (verb, "*"):
                del self.failures[index]
                raise error
        if what is not None and what.plural in self.unserved:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        if what is not None and what.group_version.startswith("resource.k8s.io/"):
            offered = dict(self.offer.resources).get(what.group_version.rpartition("/")[2], ())
            if what.plural not in offered:
                raise NotFound(404, "NotFound", "the server could not find the requested resource")

    def _found(self, what: Resource[Any], namespace: str, name: str) -> Json:
        try:
            return self.objects[what.plural, namespace, name]
        except KeyError:
            raise NotFound(404, "NotFound", f'{what.plural} "{name}" not found') from None

    def _check(self, stored: Json, uid: str, resource_version: str) -> None:
        metadata = stored["metadata"]
        if (uid and uid != metadata["uid"]) or (resource_version and resource_version != metadata["resourceVersion"]):
            raise Conflict(409, "Conflict", "the object has been modified; please apply your changes to the latest version")

    def _decoded(self, what: Resource[Any], body: Json) -> Any:
        return msgspec.json.decode(msgspec.json.encode(body), type=what.type)

    def _store(self, kind: str, key: Key, body: Json) -> Json:
        self.version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = body
        self._history.append((self.version, kind, key[0], body))
        self._wake()
        return body

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _matches(body: Json, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, value = term.partition("=")
        at: Any = body
        for step in path.split("."):
            at = (at or {}).get(step, "")
        if at != value:
            return False
    return True


def _labelled(body: Json, selector: str) -> bool:
    labels = body["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, _, value in (term.partition("=") for term in filter(None, selector.split(","))))


def _entry_key(entry: Json) -> tuple[str, ...]:
    return tuple(entry.get(name, "") for name in ("driver", "pool", "device", "shareID"))


def _applied(old: Json, new: Json) -> Json:
    named = {condition["type"]: condition for part in (old, new) for condition in part.get("conditions") or ()}
    return old | new | ({"conditions": list(named.values())} if named else {})


def _merge(onto: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            onto.pop(key, None)
        elif isinstance(value, dict):
            _merge(onto.setdefault(key, {}), value)
        else:
            onto[key] = value


async def until(true: Callable[[], bool], *, seconds: float = math.inf) -> None:
    """Let the other tasks run until something is true; for virtual time, where waiting costs nothing."""
    with trio.fail_after(seconds if seconds != math.inf else 3600):
        while not true():  # noqa: ASYNC110 - there is no event for "the code under test got there"
            await trio.sleep(0.01)
