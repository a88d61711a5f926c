"""What an API server promises its clients, asked by the official client: of simcluster's, and of a real one (`tools/cluster test`)."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from kubernetes import client, config, watch

from tools.simcluster.cluster import SimCluster

MARK = "contract"
"""A label: on a real server there are others' objects too."""
MINE = f"{MARK}=yes"
LONG = "n" * 33
OPENERS = ["real" if "CLUSTER_E2E" in os.environ else "simulated"]

Talk = Callable[[client.ApiClient], None]


@pytest.fixture(autouse=True)
def _v1() -> None:
    """Claims and slices are written in resource.k8s.io/v1 here."""
    if real_minor() < 34:
        pytest.skip("written in resource.k8s.io/v1, which came with Kubernetes 1.34")


@pytest.fixture
def _counters_apart() -> None:
    """Counter sets stand in slices of their own."""
    if real_minor() < 35:
        pytest.skip("counter sets stood beside their devices before Kubernetes 1.35, and had other limits")


def real_minor() -> int:
    """Of the real server; the simulated one is the newest."""
    if "CLUSTER_E2E" not in os.environ:
        return 37
    with client.ApiClient(config.load_kube_config(os.environ["KUBECONFIG"])) as connection:
        return minor(connection)


@pytest.fixture(params=OPENERS)
async def kubeconfig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "real":
        yield os.environ["KUBECONFIG"]
        return
    async with SimCluster(str(tmp_path), kubernetes="1.37", with_kubelet=False, tls=True).running() as cluster:
        yield cluster.kubeconfig_path


@contextmanager
def connected(kubeconfig: str) -> Iterator[client.ApiClient]:
    configuration = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=configuration)
    with client.ApiClient(configuration) as connection:
        clean(connection)
        yield connection
        clean(connection)


def clean(connection: client.ApiClient) -> None:
    client.ResourceV1Api(connection).delete_collection_resource_slice(label_selector=MINE)
    client.ResourceV1Api(connection).delete_collection_namespaced_resource_claim("default", label_selector=MINE)
    client.CoreV1Api(connection).delete_collection_namespaced_event("default", label_selector=MINE)
    client.CoreV1Api(connection).delete_collection_node(label_selector=MINE)


async def told(kubeconfig: str, talk: Talk) -> None:
    """A conversation of a blocking client."""

    def run() -> None:
        with connected(kubeconfig) as connection:
            talk(connection)

    await trio.to_thread.run_sync(run)


def metadata(name: str, **labels: str) -> dict[str, Any]:
    return {"name": name, "labels": {MARK: "yes", **labels}}


def slice_of(name: str, /, *, node: str = "contract-1", **device: Any) -> dict[str, Any]:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "contract.example.com", "nodeName": node, "pool": pool, "devices": [{"name": "gpu-0"} | device]}
    return {"metadata": metadata(name), "spec": spec}


def claim_of(name: str) -> dict[str, Any]:
    request = {"name": "gpu", "exactly": {"deviceClassName": "contract"}}
    return {"metadata": metadata(name), "spec": {"devices": {"requests": [request]}}}


def refusal(call: Callable[[], Any]) -> tuple[int, str, dict[str, Any]]:
    with pytest.raises(client.ApiException) as caught:
        call()
    status = json.loads(caught.value.body)
    return caught.value.status, status["reason"], status


def minor(connection: client.ApiClient) -> int:
    return int(client.VersionApi(connection).get_code().minor)


def causes(call: Callable[[], Any]) -> set[str]:
    """Fields that an Invalid names."""
    code, reason, status = refusal(call)
    assert (code, reason) == (422, "Invalid")
    return {cause["field"] for cause in status["details"]["causes"]}


async def test_create_read_replace_patch_delete(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        made = api.create_resource_slice(slice_of("contract-s", capacity={"memory": {"value": "16Gi"}}))
        assert made.metadata.uid and made.metadata.creation_timestamp and made.metadata.generation == 1
        assert api.read_resource_slice("contract-s").spec.devices[0].capacity["memory"].value == "16Gi"
        patched = api.patch_resource_slice("contract-s", {"metadata": {"labels": {"a": "b"}}})
        assert patched.metadata.labels == {MARK: "yes", "a": "b"}
        assert refusal(lambda: api.replace_resource_slice("contract-s", made))[:2] == (409, "Conflict")
        assert refusal(lambda: api.create_resource_slice(slice_of("contract-s")))[:2] == (409, "AlreadyExists")
        wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
        assert refusal(lambda: api.delete_resource_slice("contract-s", body=wrong))[:2] == (409, "Conflict")
        api.delete_resource_slice("contract-s")
        assert refusal(lambda: api.read_resource_slice("contract-s"))[:2] == (404, "NotFound")
        assert refusal(lambda: api.delete_resource_slice("contract-s"))[:2] == (404, "NotFound")

    await told(kubeconfig, talk)


async def test_an_update_that_changes_nothing_gives_no_new_version(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        made = api.create_resource_slice(slice_of("contract-s"))
        same = api.patch_resource_slice("contract-s", {"metadata": {"labels": {MARK: "yes"}}})
        assert same.metadata.resource_version == made.metadata.resource_version
        pool = {"generation": 2, "resourceSliceCount": 1, "name": "contract-1"}
        changed = api.patch_resource_slice("contract-s", {"spec": {"pool": pool}})
        assert (changed.metadata.generation, changed.metadata.uid) == (2, made.metadata.uid)

    await told(kubeconfig, talk)


async def test_names_are_generated(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        body = slice_of("x")
        body["metadata"] = {"generateName": "contract-made-", "labels": {MARK: "yes"}}
        names = {api.create_resource_slice(body).metadata.name for _ in range(3)}
        assert len(names) == 3 and all(name.startswith("contract-made-") for name in names)

    await told(kubeconfig, talk)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"attributes": {"v": {"version": "535.104.05"}}}, {"spec.devices[0].attributes[v].version"}),
        ({"attributes": {"w": {"string": "x" * 65}}}, {"spec.devices[0].attributes[w].string"}),
        ({"attributes": {LONG: {"int": 1}}}, {"spec.devices[0].attributes"}),
        ({"attributes": {"x": {}}}, {"spec.devices[0].attributes[x]"}),
        ({"attributes": {"x": {"int": 1, "bool": True}}}, {"spec.devices[0].attributes[x]"}),
        ({"name": "Capital"}, {"spec.devices[0].name"}),
        ({"name": "a" * 64}, {"spec.devices[0].name"}),
    ],
    ids=["version", "long-string", "long-name", "no-value", "two-values", "capital", "long-device"],
)
async def test_a_wrong_device_is_refused_by_field(kubeconfig: str, change: dict[str, Any], fields: set[str]) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        named = causes(partial(api.create_resource_slice, slice_of("contract-s", **change)))
        assert {field.removesuffix(f"[{LONG}]") for field in named} == fields, "up to 1.35 with the name that is too long"

    await told(kubeconfig, talk)


async def test_what_a_slice_is_of_cannot_change_and_must_be_said(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        api.create_resource_slice(slice_of("contract-s"))
        for field, value in (("nodeName", "elsewhere"), ("driver", "other.example.com")):
            change = {"spec": {field: value}}
            assert f"spec.{field}" in causes(partial(api.patch_resource_slice, "contract-s", change))
        homeless = slice_of("contract-t")
        del homeless["spec"]["nodeName"]
        assert causes(partial(api.create_resource_slice, homeless)) == {"spec"}
        many = slice_of("contract-t")
        many["spec"]["devices"] = [{"name": f"gpu-{number}"} for number in range(129)]
        assert causes(partial(api.create_resource_slice, many)) == {"spec.devices"}
        twice = slice_of("contract-t")
        twice["spec"]["devices"] *= 2
        assert {field.removesuffix(".name") for field in causes(partial(api.create_resource_slice, twice))} == {"spec.devices[1]"}, (
            "up to 1.34"
        )

    await told(kubeconfig, talk)


async def test_lists_are_paged_from_one_moment_and_selected(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        for index in range(5):
            api.create_resource_slice(slice_of(f"contract-s{index}", node=f"contract-{index % 2}"))
        first = api.list_resource_slice(limit=2, label_selector=MINE)
        assert len(first.items) == 2
        api.delete_resource_slice("contract-s4")
        rest = api.list_resource_slice(limit=10, label_selector=MINE, _continue=first.metadata._continue)
        assert [each.metadata.name for each in (*first.items, *rest.items)] == [f"contract-s{index}" for index in range(5)]
        assert rest.metadata.resource_version == first.metadata.resource_version
        mine = api.list_resource_slice(field_selector="spec.nodeName=contract-1,spec.driver=contract.example.com")
        assert [each.metadata.name for each in mine.items] == ["contract-s1", "contract-s3"]
        assert refusal(lambda: api.list_resource_slice(field_selector="spec.nonsense=1"))[:2] == (400, "BadRequest")
        api.delete_collection_resource_slice(field_selector="spec.nodeName=contract-0")
        assert [each.metadata.name for each in api.list_resource_slice(label_selector=MINE).items] == ["contract-s1", "contract-s3"]

    await told(kubeconfig, talk)


async def test_a_watch_sees_what_enters_changes_and_leaves_its_selection(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        api.create_resource_slice(slice_of("contract-old"))
        version = api.list_resource_slice().metadata.resource_version
        api.create_resource_slice(slice_of("contract-a") | {"metadata": metadata("contract-a", pick="me")})
        api.create_resource_slice(slice_of("contract-b"))
        api.patch_resource_slice("contract-b", {"metadata": {"labels": {"pick": "me"}}})
        api.patch_resource_slice("contract-a", {"metadata": {"annotations": {"x": "y"}}})
        api.patch_resource_slice("contract-a", {"metadata": {"labels": {"pick": None}}})
        api.delete_resource_slice("contract-b")
        stream = watch.Watch().stream(
            api.list_resource_slice, resource_version=version, label_selector="pick=me", timeout_seconds=2, allow_watch_bookmarks=True
        )
        seen = [(event["type"], event["raw_object"]["metadata"].get("name")) for event in stream if event["type"] != "BOOKMARK"]
        a, b = "contract-a", "contract-b"
        assert seen == [("ADDED", a), ("ADDED", b), ("MODIFIED", a), ("DELETED", a), ("DELETED", b)]

    await told(kubeconfig, talk)


async def test_spec_and_status_of_a_claim_are_written_apart(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        results = [{"request": "gpu", "driver": "contract.example.com", "pool": "contract-1", "device": "gpu-0"}]
        status = {"allocation": {"devices": {"results": results}}}  # reserved for nobody: a controller would look for the pod
        made = api.create_namespaced_resource_claim("default", claim_of("contract-c") | {"status": status})
        assert made.status is None or made.status.allocation is None
        body = claim_of("contract-c") | {"status": status}
        body["metadata"]["resourceVersion"] = made.metadata.resource_version
        body["spec"] = {"devices": {"requests": [{"name": "other", "exactly": {"deviceClassName": "contract"}}]}}
        allocated = api.replace_namespaced_resource_claim_status("contract-c", "default", body)
        assert allocated.status.allocation.devices.results[0].device == "gpu-0"
        assert allocated.spec.devices.requests[0].name == "gpu", "a write of the status leaves the rest"
        requests = [{"name": "gpu", "exactly": {"deviceClassName": "elsewhere"}}]
        change = {"spec": {"devices": {"requests": requests}}}
        assert causes(partial(api.patch_namespaced_resource_claim, "contract-c", "default", change)) == {"spec"}
        other = {"status": {"allocation": {"devices": {"results": [results[0] | {"device": "gpu-1"}]}}}}
        refused = causes(partial(api.patch_namespaced_resource_claim_status, "contract-c", "default", other))
        assert refused == {"status.allocation"}, "an allocation may go, not change"

    await told(kubeconfig, talk)


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        body = claim_of("contract-c")
        body["metadata"]["finalizers"] = ["contract.example.com/wait"]
        api.create_namespaced_resource_claim("default", body)
        api.delete_namespaced_resource_claim("contract-c", "default")
        held = api.read_namespaced_resource_claim("contract-c", "default")
        assert held.metadata.deletion_timestamp is not None
        api.patch_namespaced_resource_claim("contract-c", "default", {"metadata": {"finalizers": None}})
        assert refusal(lambda: api.read_namespaced_resource_claim("contract-c", "default"))[:2] == (404, "NotFound")

    await told(kubeconfig, talk)


async def test_events_are_counted_by_patches(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.CoreV1Api(connection)
        regarding = {"kind": "Pod", "namespace": "default", "name": "p"}
        body = {
            "metadata": metadata("contract-e"),
            "involvedObject": regarding,
            "reason": "R",
            "message": "m",
            "count": 1,
            "type": "Normal",
        }
        api.create_namespaced_event("default", body)
        patched = api.patch_namespaced_event("contract-e", "default", {"count": 2})
        assert (patched.count, patched.message) == (2, "m")
        elsewhere = body | {"involvedObject": regarding | {"namespace": "other"}, "metadata": metadata("contract-f")}
        assert "involvedObject.namespace" in causes(partial(api.create_namespaced_event, "default", elsewhere))

    await told(kubeconfig, talk)


async def test_a_dry_run_checks_and_stores_nothing(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        assert api.create_resource_slice(slice_of("contract-s"), dry_run="All").metadata.name == "contract-s"
        assert api.list_resource_slice(label_selector=MINE).items == []
        assert causes(partial(api.create_resource_slice, slice_of("contract-s", name="Capital"), dry_run="All"))

    await told(kubeconfig, talk)


async def test_server_side_apply_keeps_to_its_own_fields(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        def put(manager: str, labels: dict[str, str], *, force: bool = False) -> Any:
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "contract-n", "labels": {MARK: "yes", **labels}}}
            call = client.CoreV1Api(connection).patch_node
            return call("contract-n", body, field_manager=manager, force=force, _content_type="application/apply-patch+yaml")

        def shown(node: Any) -> dict[str, str]:
            return {key: value for key, value in node.metadata.labels.items() if len(key) == 1}

        assert shown(put("one", {"a": "1", "b": "1"})) == {"a": "1", "b": "1"}
        assert shown(put("two", {"c": "2"})) == {"a": "1", "b": "1", "c": "2"}
        code, _, status = refusal(lambda: put("two", {"a": "2"}))
        assert (code, [cause["field"] for cause in status["details"]["causes"]]) == (409, [".metadata.labels.a"])
        assert shown(put("two", {"a": "2"}, force=True)) == {"a": "2", "b": "1"}
        assert shown(put("one", {})) == {"a": "2"}

    await told(kubeconfig, talk)


def counted(name: str, *uses: dict[str, Any], sets: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A slice of a device that consumes counters, or of counter sets, or of both."""
    body = slice_of(name, consumesCounters=list(uses))
    if not uses:
        del body["spec"]["devices"]
    return body | {"spec": body["spec"] | ({"sharedCounters": sets} if sets is not None else {})}


def counters(count: int) -> dict[str, Any]:
    return {f"c-{index}": {"value": "1Gi"} for index in range(count)}


async def test_counters_and_who_consumes_them_are_together_or_apart(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        sets, use = [{"name": "card", "counters": counters(1)}], {"counterSet": "card", "counters": counters(1)}
        apart = minor(connection) >= 35
        both, alone, user = counted("contract-b", use, sets=sets), counted("contract-c", sets=sets), counted("contract-d", use)
        for body in (alone, user) if apart else (both,):
            kept = api.create_resource_slice(body).spec
            assert kept.shared_counters is None or kept.shared_counters[0].counters["c-0"].value == "1Gi"
            assert kept.devices is None or kept.devices[0].consumes_counters[0].counter_set == "card"
        wrong = both if apart else user
        refused = {"spec"} if apart else {"spec.devices[0].consumesCounters[0].counterSet"}
        assert causes(partial(api.create_resource_slice, wrong | {"metadata": metadata("contract-e")})) == refused

    await told(kubeconfig, talk)


USES = "spec.devices[0].consumesCounters"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (counted("contract-s", sets=[{"name": "card", "counters": {}}]), {"spec.sharedCounters[0].counters"}),
        (counted("contract-s", sets=[{"name": "Card", "counters": counters(1)}]), {"spec.sharedCounters[0].name"}),
        (counted("contract-s", sets=[{"name": "card", "counters": counters(33)}]), {"spec.sharedCounters[0].counters"}),
        (counted("contract-s", sets=[{"name": f"card-{index}", "counters": counters(1)} for index in range(9)]), {"spec.sharedCounters"}),
        (counted("contract-s", *({"counterSet": f"card-{index}", "counters": counters(1)} for index in range(3))), {USES}),
        (counted("contract-s", *[{"counterSet": "card", "counters": counters(1)}] * 2), {f"{USES}[1]"}),
        (counted("contract-s", {"counterSet": "card", "counters": {}}), {f"{USES}[0].counters"}),
    ],
    ids=["empty-set", "capital", "many-counters", "many-sets", "many-uses", "one-set-twice", "nothing-used"],
)
@pytest.mark.usefixtures("_counters_apart")
async def test_wrong_counters_are_refused_by_field(kubeconfig: str, body: dict[str, Any], fields: set[str]) -> None:
    def talk(connection: client.ApiClient) -> None:
        assert causes(partial(client.ResourceV1Api(connection).create_resource_slice, body)) == fields

    await told(kubeconfig, talk)


def shared(policy: dict[str, Any], **device: Any) -> dict[str, Any]:
    return slice_of("contract-s", capacity={"memory": {"value": "16Gi", "requestPolicy": policy}}, **device)


POLICY = "spec.devices[0].capacity[memory].requestPolicy"


@pytest.mark.parametrize(
    ("policy", "shares", "fields"),
    [
        ({"default": "1Gi", "validRange": {"min": "1Gi", "step": "512Mi"}}, True, None),
        ({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}, True, None),
        ({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}, False, {POLICY}),
        ({"default": "3Gi", "validValues": ["1Gi", "2Gi"]}, True, {f"{POLICY}.validValues"}),
        ({"default": "1Gi", "validValues": ["1Gi", "17Gi"]}, True, {f"{POLICY}.validValues[1]"}),
        ({"validValues": ["1Gi"]}, True, {f"{POLICY}.default"}),
        ({"default": "1Gi", "validRange": {"min": "1Gi"}, "validValues": ["1Gi"]}, True, {POLICY}),
        ({"default": "1Gi", "validRange": {"min": "1Gi", "max": "17Gi"}}, True, {f"{POLICY}.validRange.max"}),
        ({"default": "1536Mi", "validRange": {"min": "1Gi", "step": "1Gi"}}, True, {f"{POLICY}.validRange.step"}),
    ],
    ids=["range", "values", "exclusive", "default", "value", "no-default", "both", "max", "step"],
)
async def test_capacity_is_given_away_by_a_policy(kubeconfig: str, policy: dict[str, Any], shares: bool, fields: set[str] | None) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        body = shared(policy, **({"allowMultipleAllocations": True} if shares else {}))
        if fields is not None:
            assert causes(partial(api.create_resource_slice, body)) == fields
            return
        [device] = api.create_resource_slice(body).spec.devices
        assert device.allow_multiple_allocations is True
        assert device.capacity["memory"].request_policy.default == "1Gi"

    await told(kubeconfig, talk)


async def test_a_claim_says_how_much_and_its_result_which_share(kubeconfig: str) -> None:
    def talk(connection: client.ApiClient) -> None:
        api = client.ResourceV1Api(connection)
        body = claim_of("contract-c")
        body["spec"]["devices"]["requests"][0]["exactly"]["capacity"] = {"requests": {"memory": "2Gi"}}
        body["spec"]["devices"]["constraints"] = [{"distinctAttribute": "contract.example.com/index"}]
        made = api.create_namespaced_resource_claim("default", body).spec.devices
        assert made.requests[0].exactly.capacity.requests == {"memory": "2Gi"}
        assert made.constraints[0].distinct_attribute == "contract.example.com/index"
        empty = claim_of("contract-d")
        empty["spec"]["devices"]["constraints"] = [{"requests": ["gpu"]}]
        assert causes(partial(api.create_namespaced_resource_claim, "default", empty)) == {"spec.devices.constraints[0]"}
        share, at = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "status.allocation.devices.results[0].shareID"
        for text, refused in (("one", {at}), (share.upper(), {at}), (share, None)):
            result = {"request": "gpu", "driver": "contract.example.com", "pool": "contract-1", "device": "gpu-0", "shareID": text}
            status = {"status": {"allocation": {"devices": {"results": [result | {"consumedCapacity": {"memory": "2Gi"}}]}}}}
            write = partial(api.patch_namespaced_resource_claim_status, "contract-c", "default", status)
            if refused is not None:
                assert causes(write) == refused
            else:
                [kept] = write().status.allocation.devices.results
                assert (kept.share_id, kept.consumed_capacity) == (share, {"memory": "2Gi"})

    await told(kubeconfig, talk)
