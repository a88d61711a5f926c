"""The server's rules release by release, without HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tools.simcluster import names, releases
from tools.simcluster import store as store_module
from tools.simcluster.kinds import CLAIM, NAMESPACE, NODE, POD, SLICE, Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

TAINT = {"key": "gpu.intel.com/bad", "effect": "NoSchedule"}
CARD = [{"name": "card", "counters": {"memory": {"value": "16Gi"}}}]
USE = {"consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": "1Gi"}}}]}


def registry(kubernetes: str, **gates: bool) -> Registry:
    return Registry(Store(), releases.release(kubernetes, gates=gates))


def slice_of(devices: list[Json], **spec: Any) -> Json:
    pool = {"name": "n", "generation": 1, "resourceSliceCount": 1}
    return {"metadata": {"name": "s"}, "spec": {"driver": "gpu.intel.com", "nodeName": "n", "pool": pool, "devices": devices, **spec}}


def devices(count: int, **more: Any) -> list[Json]:
    return [{"name": f"gpu-{index}", **more} for index in range(count)]


@pytest.mark.parametrize(
    ("kubernetes", "body", "field"),
    [
        ("1.34", slice_of(devices(128)), None),
        ("1.34", slice_of(devices(129)), "spec.devices"),
        ("1.34", slice_of(devices(65, taints=[TAINT])), None),
        ("1.35", slice_of(devices(64, taints=[TAINT])), None),
        ("1.35", slice_of(devices(65, taints=[TAINT])), "spec.devices"),
        ("1.34", slice_of(devices(1, taints=[TAINT] * 5)), "spec.devices[0].taints"),
        ("1.35", slice_of(devices(1, taints=[TAINT] * 16)), None),
        ("1.34", slice_of(devices(1, taints=[{**TAINT, "effect": "None"}])), "spec.devices[0].taints[0].effect"),
        ("1.34", slice_of(devices(2, **USE), sharedCounters=CARD), None),
        ("1.35", slice_of(devices(2, **USE), sharedCounters=CARD), "spec"),
        ("1.34", slice_of(devices(1) * 2), "spec.devices[1].name"),
        ("1.35", slice_of(devices(1) * 2), "spec.devices[1]"),
        ("1.35", slice_of(devices(1, attributes={f"a{index}": {"int": 1} for index in range(33)})), "spec.devices[0]"),
        ("1.35", slice_of(devices(1, attributes={"a-b": {"int": 1}})), "spec.devices[0].attributes"),
        ("1.35", slice_of(devices(1, attributes={"a": {"int": 1, "bool": True}})), "spec.devices[0].attributes[a]"),
        ("1.35", slice_of(devices(1, capacity={"m": {"value": "12 GB"}})), "spec.devices[0].capacity[m].value"),
        ("1.35", slice_of([{"name": "Gpu"}]), "spec.devices[0].name"),
        ("1.35", slice_of(devices(1), allNodes=True), "spec"),
    ],
)
def test_limits_of_slices(kubernetes: str, body: Json, field: str | None) -> None:
    server = registry(kubernetes, DRADeviceTaints=True, DRAPartitionableDevices=True)
    if field is None:
        server.create(SLICE, body)
        return
    with pytest.raises(Refused) as caught:
        server.create(SLICE, body)
    assert caught.value.code == 422
    assert caught.value.details["causes"][0]["field"] == field


def test_what_a_gate_forbids_is_dropped_unless_it_was_there() -> None:
    server = registry("1.36")
    body = slice_of(devices(1, taints=[TAINT], skipNodeOperations=["*"]), surprise=1)
    kept = server.create(SLICE, body)
    assert kept["spec"]["devices"][0]["taints"][0]["timeAdded"]
    assert "skipNodeOperations" not in kept["spec"]["devices"][0]
    assert "surprise" not in kept["spec"]
    server.release = releases.release("1.36", gates={"DRADeviceTaints": False})
    again = {**kept, "metadata": {**kept["metadata"], "labels": {"a": "b"}}}
    assert server.replace(SLICE, "s", again)["spec"]["devices"][0]["taints"]
    fresh = server.create(SLICE, {**body, "metadata": {"name": "t"}})
    assert "taints" not in fresh["spec"]["devices"][0]
    assert "sharedCounters" not in registry("1.34").create(SLICE, slice_of(devices(1, **USE), sharedCounters=CARD))["spec"]


def test_a_write_that_changes_nothing_is_no_write() -> None:
    server = registry("1.36")
    kept = server.create(SLICE, slice_of(devices(1)))
    revision = server.store.revision
    assert server.replace(SLICE, "s", kept) == kept
    assert server.store.revision == revision


def claim_asking(**exactly: Any) -> Json:
    request = {"name": "gpu", "exactly": {"deviceClassName": "gpu", **exactly}}
    return {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}}


@pytest.mark.parametrize(
    ("kubernetes", "label"),
    [("1.32", None), ("1.33", "resource.k8s.io/admin-access"), ("1.34", "resource.kubernetes.io/admin-access")],
)
def test_admin_access_needs_the_label_of_its_release(kubernetes: str, label: str | None) -> None:
    server = registry(kubernetes, DRAAdminAccess=True)
    if label is None:
        server.create(CLAIM, claim_asking(adminAccess=True), "default")
        return
    with pytest.raises(Refused) as caught:
        server.create(CLAIM, claim_asking(adminAccess=True), "default")
    assert label in caught.value.message
    server.create(NAMESPACE, {"metadata": {"name": "admins", "labels": {label: "true"}}})
    made = server.create(CLAIM, claim_asking(adminAccess=True), "admins")
    assert made["spec"]["devices"]["requests"][0]["exactly"]["adminAccess"] is True


def test_specs_and_allocations_do_not_change() -> None:
    server = registry("1.36")
    made = server.create(CLAIM, claim_asking(), "default")
    with pytest.raises(Refused, match="immutable"):
        server.amend(CLAIM, made, lambda body: body["spec"]["devices"].update(requests=[]))

    def allocation(device: str) -> Json:
        return {"allocation": {"devices": {"results": [{"request": "gpu", "driver": "d", "pool": "p", "device": device}]}}}

    server.amend(CLAIM, made, lambda body: body.update(status=allocation("one")), subresource="status")
    with pytest.raises(Refused, match="immutable"):
        server.amend(CLAIM, made, lambda body: body.update(status=allocation("two")), subresource="status")
    with pytest.raises(Refused, match="allocated device"):
        entry = {"driver": "d", "pool": "p", "device": "two"}
        server.amend(CLAIM, made, lambda body: body["status"].update(devices=[entry]), subresource="status")


@pytest.mark.parametrize("expression", ["1 +", '"text"', "device.driver == 3"])
def test_selectors_that_do_not_compile_are_refused(expression: str) -> None:
    selectors = [{"cel": {"expression": expression}}]
    if expression == "device.driver == 3":
        # The type of what is in a device is known only when it is evaluated.
        registry("1.36").create(CLAIM, claim_asking(selectors=selectors), "default")
        return
    with pytest.raises(Refused, match="compilation failed"):
        registry("1.36").create(CLAIM, claim_asking(selectors=selectors), "default")


def test_finalizers_and_grace_hold_an_object_back() -> None:
    server = registry("1.36")
    server.create(NODE, {"metadata": {"name": "n", "finalizers": ["a/b"]}})
    assert server.delete(NODE, "n")["metadata"]["deletionTimestamp"]
    server.amend(NODE, server.get(NODE, "n"), lambda body: body["metadata"].update(finalizers=[]))
    with pytest.raises(Refused):
        server.get(NODE, "n")
    server.create(POD, {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}}, "default")
    assert server.delete(POD, "p", "default")["metadata"]["deletionGracePeriodSeconds"] == 30
    server.delete(POD, "p", "default", grace_seconds=0)
    assert server.store.get(POD, "default", "p") is None


@pytest.mark.parametrize("wrong", ["1.27", "2.0", "1", "one.two"])
def test_releases_that_are_not_emulated(wrong: str) -> None:
    with pytest.raises(ValueError, match="no such release"):
        releases.release(wrong)


@pytest.mark.parametrize(
    ("kubernetes", "constraint", "field"),
    [
        ("1.36", {"matchAttribute": "gpu.intel.com/family"}, None),
        ("1.36", {"distinctAttribute": "gpu.intel.com/family"}, None),
        ("1.35", {}, "spec.devices.constraints[0].matchAttribute"),
        ("1.36", {}, "spec.devices.constraints[0]"),
        ("1.36", {"matchAttribute": "family"}, "spec.devices.constraints[0].matchAttribute"),
        ("1.36", {"distinctAttribute": "family"}, "spec.devices.constraints[0].distinctAttribute"),
        # Of two only the first is looked at.
        ("1.36", {"matchAttribute": "a/b", "distinctAttribute": "c"}, None),
    ],
)
def test_a_constraint_names_one_attribute_with_its_domain(kubernetes: str, constraint: Json, field: str | None) -> None:
    requests = [{"name": "gpu", "exactly": {"deviceClassName": "gpu.intel.com"}}]
    claim = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests, "constraints": [constraint]}}}
    if field is None:
        registry(kubernetes).create(CLAIM, claim, "default")
        return
    with pytest.raises(Refused) as caught:
        registry(kubernetes).create(CLAIM, claim, "default")
    assert [cause["field"] for cause in caught.value.details["causes"]] == [field]


def test_pages_of_several_lists_are_not_mixed_up() -> None:
    store = Store()
    tokens = {
        store.keep_snapshot([{"metadata": {"name": str(index)}}], store.revision): index for index in range(store_module.SNAPSHOTS + 9)
    }
    assert len(tokens) == store_module.SNAPSHOTS + 9
    for token, index in list(tokens.items())[-store_module.SNAPSHOTS :]:
        assert store.snapshot(token)[1][0]["metadata"]["name"] == str(index)
    with pytest.raises(Refused) as caught:
        store.snapshot(next(iter(tokens)))
    assert caught.value.code == 410


@pytest.mark.parametrize(("text", "units"), [("1e3", 1000), ("1e999999999", 2**63 - 1), ("-12Ei", -(2**63 - 1)), ("1E", 10**18)])
def test_quantities_have_an_end(text: str, units: int) -> None:
    assert names.quantity(text) == units * 10**9
