"""The API server as the official client sees it, in a thread: its levers, and what differs by release. What any API server promises is
in tests/contracts/test_api_server.py."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import urllib3
from kubernetes import client, config

from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster

in_thread = trio.to_thread.run_sync


def slice_of(name: str, *, node: str = "node1", **device: Any) -> dict[str, Any]:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.intel.com", "nodeName": node, "pool": pool, "devices": [{"name": "gpu-0", **device}]}
    return {"metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[SimCluster]:
    async with SimCluster(str(tmp_path), kubernetes="1.36", with_kubelet=False, tls=True).running() as running:
        yield running


def connect(cluster: SimCluster) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(cluster.kubeconfig_path, client_configuration=configuration)
    return client.ApiClient(configuration)


def refusal(call: Callable[[], Any]) -> tuple[int, str, dict[str, Any]]:
    with pytest.raises(client.ApiException) as caught:
        call()
    status = json.loads(caught.value.body)
    return caught.value.status, status["reason"], status


async def test_lists_are_paged_and_selected(cluster: SimCluster) -> None:
    def talk() -> None:
        with connect(cluster) as connection:
            api = client.ResourceV1Api(connection)
            for index in range(5):
                api.create_resource_slice(slice_of(f"s{index}", node=f"node{index % 2}"))
            first = api.list_resource_slice(limit=2)
            assert first.metadata.remaining_item_count == 3
            api.delete_resource_slice("s4")
            rest = api.list_resource_slice(limit=10, _continue=first.metadata._continue)
            assert [each.metadata.name for each in (*first.items, *rest.items)] == ["s0", "s1", "s2", "s3", "s4"]
            mine = api.list_resource_slice(field_selector="spec.nodeName=node1,spec.driver=gpu.intel.com")
            assert [each.metadata.name for each in mine.items] == ["s1", "s3"]
            # Only 1.37 selects by pool.
            assert refusal(lambda: api.list_resource_slice(field_selector="spec.pool.name=node1"))[:2] == (400, "BadRequest")
            token = api.list_resource_slice(limit=1).metadata._continue
            urllib3.PoolManager(ca_certs=f"{cluster.layout.root}/ca.crt").request("POST", f"{cluster.api_url}/simcluster/faults/compact")
            assert refusal(lambda: api.list_resource_slice(limit=1, _continue=token))[:2] == (410, "Expired")
            api.delete_collection_resource_slice(field_selector="spec.nodeName=node0")
            assert [each.metadata.name for each in api.list_resource_slice().items] == ["s1", "s3"]

    await in_thread(talk)


async def test_old_versions_and_cut_watches(cluster: SimCluster) -> None:
    first_line = trio.Event()

    def lines(query: str) -> tuple[int, list[dict[str, Any]]]:
        pool = urllib3.PoolManager(ca_certs=f"{cluster.layout.root}/ca.crt", retries=False)
        answer = pool.request("GET", f"{cluster.api_url}/apis/resource.k8s.io/v1/resourceslices?watch=1&{query}", preload_content=False)
        found, kept = [], b""
        try:
            for chunk in answer.stream(1 << 16):
                kept += chunk
                trio.from_thread.run_sync(first_line.set)
        except urllib3.exceptions.ProtocolError:
            found = [{"type": "CUT"}]
        return answer.status, [json.loads(line) for line in kept.splitlines()] + found

    before = cluster.store.revision
    cluster.registry.create(kinds.SLICE, slice_of("s"))
    seen: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def watching() -> None:
            seen.extend((await in_thread(lines, f"resourceVersion={before}"))[1])

        nursery.start_soon(watching)
        with trio.fail_after(5):
            await first_line.wait()
        cluster.faults.cut_watches()
    assert [each["type"] for each in seen] == ["ADDED", "CUT"]
    cluster.store.compact()
    status, [refused] = await in_thread(lines, f"resourceVersion={before}")
    assert (status, refused["reason"]) == (410, "Expired")


async def test_faults_hit_once_or_until_removed(cluster: SimCluster) -> None:
    def talk() -> None:
        with connect(cluster) as connection:
            api = client.CoreV1Api(connection)
            plain = urllib3.PoolManager(ca_certs=f"{cluster.layout.root}/ca.crt", retries=False)
            rule = {"status": 429, "retry_after": 7, "times": 1, "verbs": ["list"], "resources": ["nodes"]}
            plain.request("POST", f"{cluster.api_url}/simcluster/faults", body=json.dumps(rule))
            answer = plain.request("GET", f"{cluster.api_url}/api/v1/nodes")
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
            assert api.list_node().items == []
            plain.request("POST", f"{cluster.api_url}/simcluster/faults", body=json.dumps({"drop": "after", "times": 1}))
            with pytest.raises(urllib3.exceptions.ProtocolError):
                plain.request("POST", f"{cluster.api_url}/api/v1/nodes", body=json.dumps({"metadata": {"name": "n"}}))
            assert [node.metadata.name for node in api.list_node().items] == ["n"]

    await in_thread(talk)


async def test_dry_run_stores_nothing_and_shows_what_a_gate_drops(tmp_path: Path) -> None:
    async with SimCluster(str(tmp_path), kubernetes="1.34", with_kubelet=False).running() as cluster:

        def talk() -> None:
            with connect(cluster) as connection:
                api = client.ResourceV1Api(connection)
                tainted = slice_of("s", taints=[{"key": "gpu.intel.com/bad", "effect": "NoSchedule"}])
                would_be = api.create_resource_slice(tainted, dry_run="All")
                assert would_be.spec.devices[0].taints is None
                assert api.list_resource_slice().items == []

        await in_thread(talk)


@pytest.mark.parametrize(
    ("kubernetes", "versions"),
    [
        ("1.28", ["v1alpha2"]),
        ("1.29", ["v1alpha2"]),
        ("1.30", ["v1alpha2"]),
        ("1.31", ["v1alpha3"]),
        ("1.32", ["v1beta1", "v1alpha3"]),
        ("1.33", ["v1beta2", "v1beta1", "v1alpha3"]),
        ("1.37", ["v1"]),
    ],
)
async def test_discovery_by_release(tmp_path: Path, kubernetes: str, versions: list[str]) -> None:
    async with SimCluster(str(tmp_path), kubernetes=kubernetes, with_kubelet=False).running() as cluster:

        def talk() -> None:
            with connect(cluster) as connection:
                assert client.VersionApi(connection).get_code().git_version.startswith(f"v{kubernetes}.")
                group = next(each for each in client.ApisApi(connection).get_api_versions().groups if each.name == "resource.k8s.io")
                assert [each.version for each in group.versions] == versions
            pool = urllib3.PoolManager()
            found = {
                version: {
                    each["name"] for each in pool.request("GET", f"{cluster.api_url}/apis/resource.k8s.io/{version}").json()["resources"]
                }
                for version in versions
            }
            assert (
                ("podschedulingcontexts" in found[versions[-1]]) == ("resourceclasses" in found[versions[-1]]) == (versions == ["v1alpha2"])
            )
            assert ("devicetaintrules" in found[versions[-1]]) == (kubernetes in ("1.33", "1.37"))

        await in_thread(talk)


async def test_each_version_has_its_shape_of_one_object(tmp_path: Path) -> None:
    async with SimCluster(str(tmp_path), kubernetes="1.33", with_kubelet=False).running() as cluster:

        def talk() -> None:
            pool = urllib3.PoolManager()
            root = f"{cluster.api_url}/apis/resource.k8s.io"
            basic = {"name": "gpu-0", "basic": {"attributes": {"a": {"int": 1}}, "capacity": {"memory": "1Gi"}}}
            body = slice_of("s")
            body["spec"]["devices"] = [basic]
            pool.request("POST", f"{root}/v1alpha3/resourceslices", body=json.dumps(body))
            seen = {
                version: pool.request("GET", f"{root}/{version}/resourceslices/s").json() for version in ("v1alpha3", "v1beta1", "v1beta2")
            }
            assert seen["v1alpha3"]["spec"]["devices"] == [basic]
            assert seen["v1beta1"]["spec"]["devices"][0]["basic"]["capacity"] == {"memory": {"value": "1Gi"}}
            assert seen["v1beta2"]["spec"]["devices"][0]["capacity"] == {"memory": {"value": "1Gi"}}
            assert pool.request("GET", f"{root}/v1/resourceslices").status == 404
            claim = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "gpu", "deviceClassName": "gpu.intel.com"}]}}}
            pool.request("POST", f"{root}/v1beta1/namespaces/default/resourceclaims", body=json.dumps(claim))
            new = pool.request("GET", f"{root}/v1beta2/namespaces/default/resourceclaims/c").json()
            exactly = {"deviceClassName": "gpu.intel.com", "allocationMode": "ExactCount", "count": 1}
            assert new["spec"]["devices"]["requests"] == [{"name": "gpu", "exactly": exactly}]

        await in_thread(talk)
