"""Whatever JSON comes in, it is stored or refused, and nothing that is stored stops the controllers or the scheduler."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.simcluster import controllers, scheduler, typed
from tools.simcluster.garbage import Garbage
from tools.simcluster.kinds import CLAIM, DEVICE_CLASS, EVENT, NODE, POD, SLICE, TAINT_RULE, TEMPLATE, Json, Kind
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.releases import release
from tools.simcluster.store import Store

TAINT = {"key": "gpu.intel.com/bad", "value": "v", "effect": "NoExecute"}
DEVICE: Json = {
    "name": "gpu-0",
    "attributes": {"family": {"string": "B"}, "driver": {"version": "1.0.0"}, "x": {"int": 1}},
    "capacity": {"memory": {"value": "16Gi"}},
    "taints": [TAINT],
    "bindingConditions": ["Ready"],
    "bindingFailureConditions": ["Broken"],
}
POOL = {"name": "node1", "generation": 1, "resourceSliceCount": 1}
CONFIG = [{"requests": ["gpu"], "opaque": {"driver": "gpu.intel.com", "parameters": {"a": None}}}]
REQUEST = {
    "deviceClassName": "gpu.intel.com",
    "selectors": [{"cel": {"expression": "device.attributes['gpu.intel.com'].x == 1"}}],
    "tolerations": [{"key": TAINT["key"], "operator": "Exists", "tolerationSeconds": 60}],
}
DEVICES: Json = {
    "requests": [{"name": "gpu", "exactly": REQUEST}, {"name": "other", "firstAvailable": [{"name": "one", **REQUEST}]}],
    "constraints": [{"requests": ["gpu"], "matchAttribute": "gpu.intel.com/family"}],
    "config": CONFIG,
}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "1"}
DEVICE_ID = {"driver": "gpu.intel.com", "pool": "node1", "device": "gpu-0"}
RESULT = {"request": "gpu", **DEVICE_ID}
SELECTOR = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}]}
GOOD: dict[Kind, Json] = {
    SLICE: {"metadata": {"name": "x"}, "spec": {"driver": "gpu.intel.com", "nodeName": "node1", "pool": POOL, "devices": [DEVICE]}},
    TAINT_RULE: {"metadata": {"name": "x"}, "spec": {"deviceSelector": {"driver": "gpu.intel.com"}, "taint": TAINT}},
    DEVICE_CLASS: {"metadata": {"name": "gpu.intel.com"}, "spec": {"selectors": [{"cel": {"expression": "true"}}], "config": CONFIG}},
    CLAIM: {
        "metadata": {"name": "x", "labels": {"a": "b"}, "finalizers": ["a/b"], "ownerReferences": [OWNER]},
        "spec": {"devices": DEVICES},
        "status": {
            "allocation": {"devices": {"results": [RESULT], "config": CONFIG}, "nodeSelector": SELECTOR},
            "reservedFor": [{"resource": "pods", "name": "x", "uid": "1"}],
            "devices": [
                {"driver": "gpu.intel.com", "pool": "node1", "device": "gpu-0", "conditions": [{"type": "Ready", "status": "True"}]}
            ],
        },
    },
    TEMPLATE: {"metadata": {"name": "x"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": DEVICES}}},
    POD: {
        "metadata": {"name": "x"},
        "spec": {
            "containers": [{"name": "main", "resources": {"claims": [{"name": "gpu"}]}}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "x"}, {"name": "t", "resourceClaimTemplateName": "x"}],
        },
        "status": {"phase": "Pending", "conditions": [{"type": "Ready"}], "resourceClaimStatuses": [{"name": "t"}]},
    },
    EVENT: {"metadata": {"name": "x"}, "involvedObject": {"kind": "Pod", "name": "x"}, "reason": "r", "count": 1},
    NODE: {"metadata": {"name": "node1"}, "spec": {}, "status": {}},
}
JUNK: list[Any] = [None, True, -1, 2**64, 1.5, "", "x", "1e999999999", [], [None], ["x"], {}, {"a": 1}, {"a": {}}]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    value = copy.deepcopy(value)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = junk
    return value


PLACES = [(kind, path) for kind, body in GOOD.items() for path in paths(body) if path]


def write(registry: Registry, kind: Kind, body: Json) -> None:
    """Create it, as a client does; then its status, which creation leaves out."""
    namespace = "default" if kind.namespaced else ""
    made = registry.create(kind, typed.checked(kind, body), namespace)
    if "status" in body:
        metadata = {"name": made["metadata"]["name"]}
        whole = typed.checked(kind, {**made, "metadata": metadata, "status": body["status"]})
        registry.replace(kind, metadata["name"], whole, namespace, subresource="status")


@given(st.sampled_from(PLACES), st.sampled_from(JUNK), st.sampled_from(["1.33", "1.34", "1.36", "1.37"]))
def test_nothing_that_is_stored_stops_the_control_plane(place: tuple[Kind, tuple[Any, ...]], junk: Any, kubernetes: str) -> None:
    changed, path = place
    gates = {"DRADeviceTaints": True, "DRAPrioritizedList": True, "DRADeviceTaintRules": True}
    registry = Registry(Store(), release(kubernetes, gates=gates))
    for kind, body in GOOD.items():
        try:
            write(registry, kind, replaced(body, path, junk) if kind is changed else body)
        except Refused as refused:
            assert kind is changed and refused.code in (400, 404, 409, 422)
    said: list[str] = []
    controllers.make_claims(registry)
    controllers.release_claims(registry, said.append)
    controllers.evict(registry, said.append)
    scheduler.schedule(registry, said.append)
    Garbage(registry, said.append).collect()


@pytest.mark.parametrize(
    ("path", "junk", "said"),
    [
        (("spec", "driver"), 5, "$.spec.driver"),
        (("spec", "devices", 0, "attributes", "x", "int"), "1", "$.spec.devices[0].attributes[...].int"),
        (("spec", "devices", 0, "attributes", "x", "int"), 2**63, "$.spec.devices[0].attributes[...].int"),
        (("spec", "pool", "generation"), True, "$.spec.pool.generation"),
        (("spec", "devices"), {}, "$.spec.devices"),
    ],
)
def test_a_field_of_another_type_is_a_bad_request(path: tuple[Any, ...], junk: Any, said: str) -> None:
    with pytest.raises(Refused) as caught:
        typed.checked(SLICE, replaced(GOOD[SLICE], path, junk))
    assert caught.value.code == 400
    assert said in caught.value.message


def test_a_null_is_a_field_that_is_not_there_but_stays_in_what_is_a_drivers() -> None:
    claim = typed.checked(CLAIM, replaced(GOOD[CLAIM], ("spec", "devices", "constraints"), None))
    assert "constraints" not in claim["spec"]["devices"]
    assert claim["spec"]["devices"]["config"][0]["opaque"]["parameters"] == {"a": None}
