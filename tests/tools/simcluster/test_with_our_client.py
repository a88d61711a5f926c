"""Our own API client against the simulated server: discovery, objects, and watches that end in each of their ways."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.edges.kubeconfig import KubeconfigCredentials
from nursery_apps.seams import Conflict, Gone, Invalid, KubeApi, NotFound, Resource, Throttled, Unavailable
from tools.simcluster.cluster import SimCluster

SLICES: Resource[dict[str, Any]] = Resource("resource.k8s.io/v1", "resourceslices", dict)


def slice_of(name: str) -> dict[str, Any]:
    pool = {"name": "n", "generation": 1, "resourceSliceCount": 1}
    return {"metadata": {"name": name}, "spec": {"driver": "gpu.intel.com", "nodeName": "n", "pool": pool, "devices": []}}


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SimCluster]:
    async with SimCluster(str(tmp_path), kubernetes="1.35", with_kubelet=False, tls=request.param).running() as running:
        yield running


@pytest.fixture
async def api(cluster: SimCluster) -> AsyncIterator[KubeApi]:
    client = HttpKubeApi(KubeconfigCredentials(cluster.kubeconfig_path), user_agent="test/1", random=lambda: 0.5)
    yield client
    await client.aclose()


async def test_discovery(api: KubeApi) -> None:
    served = await api.served()
    assert served.server_version == "v1.35.6"
    assert served.resources == (("v1", ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices")),)


async def test_objects_and_refusals(api: KubeApi, cluster: SimCluster) -> None:
    first = await api.create(SLICES, slice_of("a"))
    changed = {**first, "metadata": {**first["metadata"], "labels": {"x": "y"}}}
    await api.replace(SLICES, changed)
    with pytest.raises(Conflict):
        await api.replace(SLICES, first)
    with pytest.raises(Invalid):
        await api.create(SLICES, slice_of("Upper"))
    with pytest.raises(Invalid):
        await api.list(SLICES, field_selector="spec.pool.name=n")
    cluster.faults.throttle(retry_after=3, times=1)
    with pytest.raises(Throttled) as throttled:
        await api.create(SLICES, slice_of("b"))
    assert throttled.value.retry_after_seconds == 3
    cluster.faults.drop("after", times=1, verbs=("create",))
    with pytest.raises(Unavailable):
        await api.create(SLICES, slice_of("b"))
    assert [each["metadata"]["name"] for each in (await api.list(SLICES)).items] == ["a", "b"]
    await api.delete(SLICES, "a", uid=first["metadata"]["uid"])
    with pytest.raises(NotFound):
        await api.get(SLICES, "a")


async def test_a_watch_with_bookmarks_that_is_cut_or_too_old(api: KubeApi, cluster: SimCluster) -> None:
    cluster.http.bookmark_seconds = 0.05
    version = (await api.list(SLICES)).resource_version
    events = api.watch(SLICES, field_selector="spec.nodeName=n", resource_version=version)
    async with contextlib.aclosing(events):
        with trio.fail_after(5):
            assert (await anext(events)).type == "BOOKMARK"
            await api.create(SLICES, slice_of("a"))
            seen = [event async for event in _until(events, "ADDED")]
            cluster.faults.cut_watches()
            with contextlib.suppress(StopAsyncIteration, Unavailable):
                while True:
                    assert (await anext(events)).type == "BOOKMARK"
    assert seen[-1].object is not None
    cluster.store.compact()
    late = api.watch(SLICES, resource_version=version)
    async with contextlib.aclosing(late):
        with trio.fail_after(5), pytest.raises(Gone):
            await anext(late)


async def _until(events: AsyncIterator[Any], kind: str) -> AsyncIterator[Any]:
    async for event in events:
        yield event
        if event.type == kind:
            return
