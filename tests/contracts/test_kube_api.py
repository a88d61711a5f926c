"""The promises of `KubeApi`, over the fake and over the real edge. Another server is one more entry in `OPENERS`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import pytest
import trio

from nursery_apps.credentials import Identity, Transport
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.seams import Conflict, Gone, KubeApi, Listing, NotFound, Resource, Watched
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_http import KubeHttp, serving

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


Opener = Callable[..., AbstractAsyncContextManager[tuple[KubeApi, Levers]]]
OPENERS: dict[str, Opener] = {"fake": in_memory, "http": over_http}


@pytest.fixture(params=OPENERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    return OPENERS[request.param]


def a_slice(name: str, node: str = "n1") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"driver": "gpu.intel.com", "nodeName": node, "pool": {"name": node, "generation": 1}}}


async def take(events: AsyncIterator[Watched[Any]], count: int) -> list[Watched[Any]]:
    with trio.fail_after(5):
        return [await anext(events) for _ in range(count)]


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
        second = await api.replace(SLICES, first)
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
            await api.replace(SLICES, before)
            server.bookmark()
            await api.delete(SLICES, "before")
            changed, mark, deleted = await take(events, 3)
    assert changed.object is not None and deleted.object is not None
    assert (changed.type, changed.object["metadata"]["name"]) == ("MODIFIED", "before")
    assert (mark.type, mark.object) == ("BOOKMARK", None)
    assert (deleted.type, deleted.object["metadata"]["name"]) == ("DELETED", "before")
    assert int(version) < int(changed.resource_version) < int(mark.resource_version) < int(deleted.resource_version)


async def test_a_watch_goes_on_from_a_bookmark(opener: Opener) -> None:
    async with opener() as (api, server):
        events = api.watch(SLICES, resource_version=(await api.list(SLICES)).resource_version)
        async with contextlib.aclosing(events):
            server.bookmark()
            [mark] = await take(events, 1)
        await api.create(SLICES, a_slice("x"))
        again = api.watch(SLICES, resource_version=mark.resource_version)
        async with contextlib.aclosing(again):
            [added] = await take(again, 1)
        assert added.type == "ADDED"


async def test_a_version_that_is_too_old_is_gone(opener: Opener) -> None:
    async with opener() as (api, server):
        version = (await api.list(SLICES)).resource_version
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
            with trio.fail_after(5), pytest.raises(StopAsyncIteration):
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
