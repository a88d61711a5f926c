"""CustomResourceDefinitions and the objects they make possible, and Leases: over HTTP, by a client that knows nothing of them."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import urllib3
import yaml

from tools.simcluster import kinds, structural
from tools.simcluster.cluster import SimCluster

GROUP, VERSION = "gpu.resource.intel.com", "v1alpha2"
ITEMS = f"/apis/{GROUP}/{VERSION}"
STATES = f"{ITEMS}/namespaces/default/gpuallocationstates"
PARAMETERS = f"{ITEMS}/namespaces/default/gpuclaimparameters"
DEVICE = {
    "type": "object",
    "required": ["uid", "memory"],
    "properties": {
        "uid": {"type": "string"},
        "memory": {"type": "integer", "minimum": 0, "maximum": 1048576},
        "ecc": {"type": "boolean", "default": False},
    },
}


def definition(kind: str, spec: dict[str, Any], *, scope: str = "Namespaced", **more: Any) -> dict[str, Any]:
    plural = kind.lower() if kind.endswith("s") else f"{kind.lower()}s"
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": spec},
            "status": {"type": "string", "enum": ["Ready", "NotReady"]},
        },
    }
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "kind": kind, **more}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": [version]},
    }


DEFINITIONS = [
    definition(
        "GpuAllocationState",
        {
            "allocatableDevices": {"type": "object", "additionalProperties": DEVICE},
            "taintedDevices": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"reasons": {"type": "object", "additionalProperties": {"type": "boolean"}}},
                },
            },
        },
        singular="gas",
        shortNames=["gas"],
    ),
    definition(
        "GpuClaimParameters",
        {
            "count": {"type": "integer", "minimum": 1, "maximum": 640, "default": 1},
            "type": {"type": "string", "enum": ["gpu", "vf", "any"], "default": "gpu"},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}},
        },
        singular="gpuclaimparameters",
    ),
    definition("GpuClassParameters", {"shared": {"type": "boolean"}}, scope="Cluster", singular="gpuclassparameters"),
]

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(params=["1.28", "1.37"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SimCluster]:
    manifest = tmp_path / "definitions.yaml"
    manifest.write_text(yaml.safe_dump_all(DEFINITIONS))
    async with SimCluster(str(tmp_path / "root"), kubernetes=request.param, with_kubelet=False).running() as running:
        running.apply_file(str(manifest))
        yield running


async def talk(cluster: SimCluster, conversation: Callable[[Ask], None]) -> None:
    pool = urllib3.PoolManager()

    def ask(method: str, path: str, body: Any = None, *, media: str = "application/json") -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        answer = pool.request(method, cluster.api_url + path, body=data, headers={"Content-Type": media}, retries=False)
        return answer.status, answer.json()

    await trio.to_thread.run_sync(conversation, ask)


def merge(ask: Ask, path: str, patch: Any) -> tuple[int, Any]:
    return ask("PATCH", path, patch, media="application/merge-patch+json")


async def test_discovery_knows_them_as_long_as_they_are_defined(cluster: SimCluster) -> None:
    def conversation(ask: Ask) -> None:
        listed = ask("GET", ITEMS)[1]["resources"]
        assert {each["name"]: (each["namespaced"], each["singularName"], each.get("shortNames")) for each in listed} == {
            "gpuallocationstates": (True, "gas", ["gas"]),
            "gpuclaimparameters": (True, "gpuclaimparameters", None),
            "gpuclassparameters": (False, "gpuclassparameters", None),
        }
        assert GROUP in {group["name"] for group in ask("GET", "/apis")[1]["groups"]}
        found = ask("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gpuallocationstates.{GROUP}")[1]
        assert {each["type"]: each["status"] for each in found["status"]["conditions"]} == {"NamesAccepted": "True", "Established": "True"}
        ask("POST", STATES, {"metadata": {"name": "node1"}})
        assert ask("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gpuallocationstates.{GROUP}")[0] == 200
        assert ask("GET", STATES)[0] == 404

    await talk(cluster, conversation)


async def test_defaults_come_in_and_unknown_fields_go(cluster: SimCluster) -> None:
    def conversation(ask: Ask) -> None:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "GpuClaimParameters",
            "metadata": {"name": "p"},
            "spec": {"color": "red"},
            "more": 1,
        }
        code, made = ask("POST", PARAMETERS, body)
        assert code == 201
        assert made["spec"] == {"count": 1, "type": "gpu"}
        assert (made["apiVersion"], made["kind"]) == (f"{GROUP}/{VERSION}", "GpuClaimParameters")
        assert "more" not in made
        devices = {"u": {"uid": "u", "memory": 5, "color": "red"}}
        made = ask("POST", STATES, {"metadata": {"name": "node1"}, "spec": {"allocatableDevices": devices}})[1]
        assert made["spec"]["allocatableDevices"] == {"u": {"uid": "u", "memory": 5, "ecc": False}}

    await talk(cluster, conversation)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"count": 0}, "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1"),
        ({"count": 641}, "spec.count: Invalid value: 641: spec.count in body should be less than or equal to 640"),
        ({"count": "1"}, 'spec.count: Invalid value: "string": spec.count in body must be of type integer: "string"'),
        ({"count": True}, 'spec.count: Invalid value: "boolean": spec.count in body must be of type integer: "boolean"'),
        ({"type": "npu"}, 'spec.type: Unsupported value: "npu": supported values: "gpu", "vf", "any"'),
        ({"tags": ["a", "b", "c"]}, 'spec.tags: Invalid value: ["a","b","c"]: spec.tags in body should have at most 2 items'),
        ({"tags": ["A"]}, "spec.tags[0]: Invalid value: \"A\": spec.tags[0] in body should match '^[a-z]+$'"),
        ({"tags": ["abcd"]}, 'spec.tags[0]: Invalid value: "abcd": spec.tags[0] in body should be at most 3 chars long'),
        ([], 'spec: Invalid value: "array": spec in body must be of type object: "array"'),
    ],
)
async def test_what_the_schema_forbids_is_refused(cluster: SimCluster, spec: Any, said: str) -> None:
    def conversation(ask: Ask) -> None:
        code, status = ask("POST", PARAMETERS, {"metadata": {"name": "p"}, "spec": spec})
        assert (code, status["reason"]) == (422, "Invalid")
        assert status["message"] == f'GpuClaimParameters.{GROUP} "p" is invalid: {said}'

    await talk(cluster, conversation)


async def test_a_merge_patch_sets_removes_and_leaves_alone(cluster: SimCluster) -> None:
    """As the owners of parts of a GpuAllocationState write: the node, and the receiver of alerts."""

    def conversation(ask: Ask) -> None:
        path = f"{STATES}/node1"
        devices = {name: {"uid": name, "memory": 1} for name in ("a", "b")}
        ask("POST", STATES, {"metadata": {"name": "node1"}, "spec": {"allocatableDevices": devices}, "status": "NotReady"})
        merge(ask, path, {"spec": {"taintedDevices": {"a": {"reasons": {"hot": True, "slow": True}}, "b": {"reasons": {"hot": True}}}}})
        code, now = merge(ask, path, {"spec": {"taintedDevices": {"a": {"reasons": {"hot": None}}, "b": None}}})
        assert code == 200
        assert now["spec"]["taintedDevices"] == {"a": {"reasons": {"slow": True}}}
        assert sorted(now["spec"]["allocatableDevices"]) == ["a", "b"]
        now = merge(ask, path, {"status": "Ready", "spec": {"allocatableDevices": {"b": None}}})[1]
        assert (now["status"], sorted(now["spec"]["allocatableDevices"])) == ("Ready", ["a"])
        assert merge(ask, path, {"status": "Perhaps"})[0] == 422
        stale = {"metadata": {"resourceVersion": "1"}, "status": "NotReady"}
        assert merge(ask, path, stale)[0] == 409

    await talk(cluster, conversation)


async def test_a_put_names_the_version_it_replaces(cluster: SimCluster) -> None:
    def conversation(ask: Ask) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
        for items, spec in ((STATES, {}), (leases, {"holderIdentity": "me", "leaseDurationSeconds": 50})):
            path = f"{items}/x"
            made = ask("POST", items, {"metadata": {"name": "x", "labels": {"mine": "yes"}}, "spec": spec})[1]
            newer = copy.deepcopy(made)
            newer["metadata"]["labels"] = {"mine": "no"}
            assert ask("PUT", path, newer)[0] == 200
            assert ask("PUT", path, made)[0] == 409
            del newer["metadata"]["resourceVersion"]
            code, status = ask("PUT", path, newer)
            assert (code, status["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
            assert [each["metadata"]["name"] for each in ask("GET", f"{items}?labelSelector=mine%3Dno")[1]["items"]] == ["x"]

    await talk(cluster, conversation)


async def test_they_go_with_their_node(cluster: SimCluster) -> None:
    node = cluster.create(kinds.NODE, {"metadata": {"name": "node1"}})
    kind = cluster.registry.kind(f"{GROUP}/{VERSION}", "GpuAllocationState")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": node["metadata"]["uid"]}
    cluster.create(kind, {"metadata": {"name": "node1", "ownerReferences": [owner]}})
    cluster.registry.delete(kinds.NODE, "node1")
    await cluster.wait(kind, lambda states: not states, "the state gone")


async def test_a_status_subresource_is_apart(tmp_path: Path) -> None:
    async with SimCluster(str(tmp_path), kubernetes="1.28", with_kubelet=False).running() as cluster:
        apart = definition("GpuThing", {"count": {"type": "integer"}})
        apart["spec"]["versions"][0]["subresources"] = {"status": {}}
        cluster.create(kinds.DEFINITION, {key: value for key, value in apart.items() if key not in ("apiVersion", "kind")})

        def conversation(ask: Ask) -> None:
            things = f"{ITEMS}/namespaces/default/gputhings"
            assert "status" not in ask("POST", things, {"metadata": {"name": "t"}, "status": "Ready"})[1]
            assert merge(ask, f"{things}/t/status", {"status": "Ready", "spec": {"count": 1}})[1].get("spec") is None
            now = merge(ask, f"{things}/t", {"status": None, "spec": {"count": 2}})[1]
            assert (now["status"], now["spec"]) == ("Ready", {"count": 2})

        await talk(cluster, conversation)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("spec", "group"), "intel", "spec.group"),
        (("spec", "scope"), "Galaxy", "spec.scope"),
        (("spec", "names", "plural"), "others", "metadata.name"),
        (("spec", "versions", 0, "storage"), False, "spec.versions"),
        (("spec", "versions", 0, "schema"), {}, "spec.versions[0].schema.openAPIV3Schema"),
        (
            ("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "properties", "count"),
            {},
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[count].type",
        ),
    ],
)
async def test_a_definition_that_makes_no_sense_is_refused(
    cluster: SimCluster, path: tuple[str | int, ...], value: Any, field: str
) -> None:
    body: Any = definition("GpuThing", {"count": {"type": "integer"}})
    at = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value

    def conversation(ask: Ask) -> None:
        code, status = ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
        assert code == 422
        assert field in {cause["field"] for cause in status["details"]["causes"]}

    await talk(cluster, conversation)


@pytest.mark.parametrize(
    ("schema", "value", "is_right"),
    [
        ({"x-kubernetes-int-or-string": True}, "5", True),
        ({"x-kubernetes-int-or-string": True}, 5, True),
        ({"x-kubernetes-int-or-string": True}, [], False),
        ({"type": "string", "nullable": True}, None, True),
        ({"type": "string"}, None, False),
        ({"type": "number", "exclusiveMinimum": True, "minimum": 1}, 1, False),
        ({"type": "integer", "multipleOf": 4}, 8, True),
        ({"type": "array", "uniqueItems": True, "items": {"type": "integer"}}, [1, 1], False),
        ({"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}, {}, False),
    ],
)
def test_the_rest_of_the_schema(schema: Any, value: Any, is_right: bool) -> None:
    assert structural.schema_faults(schema, "") == []
    assert (structural.faults(schema, value, "x") == []) is is_right


def test_what_is_to_be_preserved_is() -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "object", "properties": {}}}}
    assert structural.complete(schema, {"a": {"b": 1}, "c": 2}) == {"a": {}, "c": 2}
