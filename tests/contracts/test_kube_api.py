"""The promises of `KubeApi`, over the fake and over the real edge. Another server is one more entry in `OPENERS`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import pytest
import trio

from nursery_apps.credentials import Identity, Transport
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.seams import Conflict, Gone, KubeApi, Listing, NotFound, Resource, Unavailable, Watched
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_http import KubeHttp, serving
from tools.simcluster import api_server, kinds, releases
from tools.simcluster.faults import Faults
from tools.simcluster.http_api import HttpApi
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

SLICES: Resource[dict[str, Any]] = Resource("resource.k8s.io/v1", "resourceslices", dict)
EVENTS: Resource[dict[str, Any]] = Resource("v1", "events", dict, namespaced=True)


class Named(msgspec.Struct):
    name: str


class Typed(msgspec.Struct):
    metadata: Named


class FixedCredentials:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.refusals = 0

    async def identity(self) -> Identity:
        await trio.lowlevel.checkpoint()
        return self._identity

    def refused(self) -> None:
        self.refusals += 1


class Levers(Protocol):
    """What a test does behind the API's back."""

    def put(self, plural: str, body: dict[str, Any], *, namespace: str = "") -> object: ...

    def bookmark(self) -> None: ...

    def expire(self) -> None: ...

    def cut(self) -> None: ...


@contextlib.asynccontextmanager
async def in_memory(server_version: str = "v1.34.3", versions: Sequence[str] = ("v1",)) -> AsyncIterator[tuple[KubeApi, Levers]]:
    server = FakeKubeApi(server_version=server_version, versions=versions)
    yield server, server


@contextlib.asynccontextmanager
async def over_http(server_version: str = "v1.34.3", versions: Sequence[str] = ("v1",)) -> AsyncIterator[tuple[KubeApi, Levers]]:
    server = FakeKubeApi(server_version=server_version, versions=versions)
    http = KubeHttp(server)
    http.page, http.chunk = 2, 7
    async with serving(http) as url:
        api = HttpKubeApi(FixedCredentials(Identity(Transport(url))), user_agent="test/1", random=lambda: 0.5)
        yield api, server
        await api.aclose()


class Simcluster:
    """The embedded control plane's API server, and its levers."""

    def __init__(self, server_version: str, versions: Sequence[str]) -> None:
        # A server without DRA is one that serves no version of it.
        release = releases.release(server_version if versions else "1.34", runtime_config=tuple(v for v in versions if v != "v1"))
        served = tuple((version, plurals) for version, plurals in release.served if version in versions)
        release = msgspec.structs.replace(release, served=served, git_version=server_version)
        self.registry = Registry(Store(), release)
        self.faults = Faults()
        self.http = HttpApi(self.registry, self.faults)
        self.http.bookmark_seconds = 0.05

    def put(self, plural: str, body: dict[str, Any], *, namespace: str = "") -> object:
        kind = next(kind for kind in kinds.ALL if kind.plural == plural)
        try:
            self.registry.get(kind, body["metadata"]["name"], namespace)
        except Refused:
            return self.registry.create(kind, body, namespace)
        return self.registry.replace(kind, body["metadata"]["name"], body, namespace)

    def bookmark(self) -> None:
        """They come by themselves, every 50 ms."""

    def expire(self) -> None:
        self.registry.store.compact()

    def cut(self) -> None:
        self.faults.cut_watches()


@contextlib.asynccontextmanager
async def over_simcluster(server_version: str = "v1.34.3", versions: Sequence[str] = ("v1",)) -> AsyncIterator[tuple[KubeApi, Levers]]:
    cluster = Simcluster(server_version, versions)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(api_server.serve, cluster.http)
        api = HttpKubeApi(FixedCredentials(Identity(Transport(url))), user_agent="test/1", random=lambda: 0.5)
        yield api, cluster
        await api.aclose()
        nursery.cancel_scope.cancel()


Opener = Callable[..., AbstractAsyncContextManager[tuple[KubeApi, Levers]]]
OPENERS: dict[str, Opener] = {"fake": in_memory, "http": over_http, "simcluster": over_simcluster}


@pytest.fixture(params=OPENERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    return OPENERS[request.param]


def a_slice(name: str, node: str = "n1") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"driver": "gpu.intel.com", "nodeName": node, "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}},
    }


def changed(stored: dict[str, Any]) -> dict[str, Any]:
    """Something has to differ: a server stores nothing, and gives no new version, for an update that says what it has."""
    labelled = copy.deepcopy(stored)
    labelled["metadata"].setdefault("labels", {})["changed"] = "yes"
    return labelled


async def take(events: AsyncIterator[Watched[Any]], count: int, *, bookmarks: bool = False) -> list[Watched[Any]]:
    """The next events; bookmarks, which a server sends when it likes, only if asked for."""
    taken: list[Watched[Any]] = []
    with trio.fail_after(5):
        while len(taken) < count:
            event = await anext(events)
            if bookmarks or event.type != "BOOKMARK":
                taken.append(event)
    return taken


async def test_discovery_names_versions_and_their_resources(opener: Opener) -> None:
    async with opener(server_version="v1.36.1", versions=("v1", "v1beta2")) as (api, _):
        served = await api.served()
    assert served.server_version == "v1.36.1"
    assert [version for version, _ in served.resources] == ["v1", "v1beta2"]
    assert "resourceslices" in dict(served.resources)["v1"]


async def test_a_server_without_dra_serves_nothing_of_it(opener: Opener) -> None:
    async with opener(server_version="v1.27.0", versions=()) as (api, _):
        assert (await api.served()).resources == ()
        with pytest.raises(NotFound):
            await api.list(SLICES)


async def test_what_is_created_is_read_back_as_stored(opener: Opener) -> None:
    async with opener() as (api, _):
        body = a_slice("x")
        body["metadata"] = {"generateName": "00-gpu-"}
        stored = await api.create(SLICES, body)
        assert stored["metadata"]["name"].startswith("00-gpu-") and stored["metadata"]["uid"] and stored["metadata"]["resourceVersion"]
        assert await api.get(SLICES, stored["metadata"]["name"]) == stored


async def test_a_dry_run_stores_nothing(opener: Opener) -> None:
    async with opener() as (api, _):
        assert (await api.create(SLICES, a_slice("x"), dry_run=True))["metadata"]["name"] == "x"
        with pytest.raises(NotFound):
            await api.get(SLICES, "x")


async def test_a_name_that_is_taken_is_a_conflict_and_so_is_an_old_version(opener: Opener) -> None:
    async with opener() as (api, _):
        first = await api.create(SLICES, a_slice("x"))
        with pytest.raises(Conflict) as taken:
            await api.create(SLICES, a_slice("x"))
        assert taken.value.reason == "AlreadyExists"
        second = await api.replace(SLICES, changed(first))
        assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
        with pytest.raises(Conflict) as late:
            await api.replace(SLICES, first)
        assert late.value.reason == "Conflict"
        with pytest.raises(Conflict):
            await api.delete(SLICES, "x", uid="somebody-else")
        await api.delete(SLICES, "x", uid=second["metadata"]["uid"], resource_version=second["metadata"]["resourceVersion"])
        with pytest.raises(NotFound):
            await api.delete(SLICES, "x")


async def test_a_list_is_complete_and_obeys_the_field_selector(opener: Opener) -> None:
    async with opener() as (api, _):
        for number in range(5):
            await api.create(SLICES, a_slice(f"x{number}", "n1" if number < 3 else "n2"))
        listing = await api.list(SLICES, field_selector="spec.driver=gpu.intel.com,spec.nodeName=n1")
        assert [one["metadata"]["name"] for one in listing.items] == ["x0", "x1", "x2"]
        assert len((await api.list(SLICES)).items) == 5
        assert int(listing.resource_version) > 0


async def test_objects_come_as_the_type_asked_for(opener: Opener) -> None:
    async with opener() as (api, _):
        await api.create(SLICES, a_slice("x"))
        typed: Listing[Typed] = await api.list(Resource("resource.k8s.io/v1", "resourceslices", Typed))
        assert typed.items == [Typed(Named("x"))]


async def test_a_watch_tells_what_happens_after_its_version_and_only_what_was_selected(opener: Opener) -> None:
    async with opener() as (api, server):
        before = await api.create(SLICES, a_slice("before"))
        version = (await api.list(SLICES)).resource_version
        events = api.watch(SLICES, field_selector="spec.nodeName=n1", resource_version=version)
        async with contextlib.aclosing(events):
            await api.create(SLICES, a_slice("elsewhere", "n2"))
            await api.replace(SLICES, changed(before))
            [modified] = await take(events, 1)
            server.bookmark()
            [mark] = await take(events, 1, bookmarks=True)
            await api.delete(SLICES, "before")
            [deleted] = await take(events, 1)
    assert modified.object is not None and deleted.object is not None
    assert (modified.type, modified.object["metadata"]["name"]) == ("MODIFIED", "before")
    assert (mark.type, mark.object) == ("BOOKMARK", None)
    assert (deleted.type, deleted.object["metadata"]["name"]) == ("DELETED", "before")
    assert int(version) < int(modified.resource_version) <= int(mark.resource_version) < int(deleted.resource_version)


async def test_a_watch_goes_on_from_a_bookmark(opener: Opener) -> None:
    async with opener() as (api, server):
        events = api.watch(SLICES, resource_version=(await api.list(SLICES)).resource_version)
        async with contextlib.aclosing(events):
            server.bookmark()
            [mark] = await take(events, 1, bookmarks=True)
        await api.create(SLICES, a_slice("x"))
        again = api.watch(SLICES, resource_version=mark.resource_version)
        async with contextlib.aclosing(again):
            [added] = await take(again, 1)
        assert added.type == "ADDED"


async def test_a_version_that_is_too_old_is_gone(opener: Opener) -> None:
    async with opener() as (api, server):
        version = (await api.list(SLICES)).resource_version
        server.put("resourceslices", a_slice("later"))
        server.expire()
        events = api.watch(SLICES, resource_version=version)
        async with contextlib.aclosing(events):
            with pytest.raises(Gone):
                await take(events, 1)


async def test_a_watch_that_the_server_ends_just_ends(opener: Opener) -> None:
    async with opener() as (api, server):
        events = api.watch(SLICES, resource_version=(await api.list(SLICES)).resource_version)
        async with contextlib.aclosing(events):
            server.put("resourceslices", a_slice("x"))
            assert [event.type for event in await take(events, 1)] == ["ADDED"]
            server.cut()
            # Ended between two lines it just ends; a server that dies in the middle of its answer is unavailable.
            with trio.fail_after(5), pytest.raises((StopAsyncIteration, Unavailable)):
                while True:
                    await anext(events)


async def test_a_cancelled_watch_is_over_at_once_and_calls_go_on(opener: Opener) -> None:
    async with opener() as (api, _):
        with trio.move_on_after(0.05) as scope:
            events = api.watch(SLICES, resource_version=(await api.list(SLICES)).resource_version)
            async with contextlib.aclosing(events):
                await anext(events)
        assert scope.cancelled_caught
        assert (await api.list(SLICES)).items == []


async def test_namespaces_and_patches(opener: Opener) -> None:
    async with opener() as (api, _):
        await api.create(EVENTS, {"metadata": {"name": "e"}, "count": 1, "message": "m"}, namespace="default")
        patched = await api.patch(EVENTS, "e", {"count": 2}, content_type="application/merge-patch+json", namespace="default")
        assert (patched["count"], patched["message"], patched["metadata"]["namespace"]) == (2, "m", "default")
        assert (await api.list(EVENTS, namespace="other")).items == []
        with pytest.raises(NotFound):
            await api.get(EVENTS, "e", namespace="other")


CLAIMS: Resource[dict[str, Any]] = Resource("resource.k8s.io/v1", "resourceclaims", dict, namespaced=True)


async def test_apply_writes_the_entries_it_names_and_takes_back_those_it_no_longer_names(opener: Opener) -> None:
    def entry(device: str, **more: Any) -> dict[str, Any]:
        return {"driver": "gpu.intel.com", "pool": "n1", "device": device, **more}

    def devices(stored: dict[str, Any]) -> dict[str, Any]:
        return {each["device"]: each.get("data") for each in stored["status"]["devices"]}

    async with opener() as (api, _):
        made = await api.create(
            CLAIMS,
            {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "g", "exactly": {"deviceClassName": "g"}}]}}},
            namespace="default",
        )
        results = [{"request": "g", **entry(device)} for device in ("a", "b", "others")]
        theirs = entry("others", data={"by": "them"})
        status = {"allocation": {"devices": {"results": results}}, "devices": [theirs]}
        merge = "application/merge-patch+json"
        await api.patch(CLAIMS, "c", {"status": status}, content_type=merge, namespace="default", subresource="status")

        async def apply(*entries: dict[str, Any]) -> dict[str, Any]:
            body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "default"}}
            body["metadata"]["uid"] = made["metadata"]["uid"]  # type: ignore[index]
            return await api.patch(
                CLAIMS,
                "c",
                {**body, "status": {"devices": list(entries)}},
                content_type="application/apply-patch+yaml",
                namespace="default",
                subresource="status",
            )

        assert devices(await apply(entry("a", data={"n": 1}), entry("b"))) == {"others": {"by": "them"}, "a": {"n": 1}, "b": None}
        assert devices(await apply(entry("a", data={"n": 2}))) == {"others": {"by": "them"}, "a": {"n": 2}}
        assert devices(await api.get(CLAIMS, "c", namespace="default")) == {"others": {"by": "them"}, "a": {"n": 2}}
