from __future__ import annotations

import copy
import warnings
from typing import Any

import msgspec
import pytest

from dra import slice_contents, slices
from dra.devices import Gpu
from dra.kube.meta import OwnerReference
from dra.names import Bdf, DeviceName, NodeName
from dra.pool import Device, Effect, Pool, Taint
from dra.slices import SliceApi

NODE = NodeName("worker-1")
OWNER = OwnerReference(api_version="v1", kind="Node", name="worker-1", uid="node-uid")
GPU = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56c0", memory_bytes=16 << 30, driver_version="6.12.57+deb13-amd64")
SICK = Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE, "reset-failed")


def gpus(count: int) -> list[Gpu]:
    return [msgspec.structs.replace(GPU, bdf=Bdf(f"0000:{n // 256:02x}:{n // 8 % 32:02x}.{n % 8}")) for n in range(count)]


@pytest.mark.parametrize("version", slices.VERSIONS)
def test_the_official_client_reads_every_version_back_without_loss(version: str) -> None:
    kinds = {"v1": "V1ResourceSlice", "v1beta2": "V1beta2ResourceSlice", "v1beta1": "V1beta1ResourceSlice"}
    pool = slices.desired(NODE, [GPU], taints={GPU.name: (SICK,)}).pool
    if version == "v1alpha3":
        pool = slices.desired(NODE, [GPU]).pool
    [body] = slices.render(pool, SliceApi.of(version, ""), generation=3, owner=OWNER)
    if version == "v1alpha3":
        # The client no longer knows it: v1beta1 but for the bare quantities.
        capacity = body["spec"]["devices"][0]["basic"]["capacity"]
        assert capacity == {"memory": "16384Mi", "millicores": "1k"}
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kubernetes import client

        api = client.ApiClient()
        model = api.deserialize(msgspec.json.encode(body).decode(), kinds[version], "application/json")
        back: dict[str, Any] = api.sanitize_for_serialization(model)  # type: ignore[no-untyped-call]
    assert back["spec"] == body["spec"]
    assert back["metadata"]["ownerReferences"][0]["uid"] == "node-uid"


def test_no_gpus_is_said_by_an_empty_slice() -> None:
    [body] = slices.render(slices.desired(NODE, []).pool, SliceApi("v1", (1, 34)), generation=1, owner=None)
    assert body["spec"]["devices"] == []
    assert body["spec"]["pool"] == {"name": "worker-1", "generation": 1, "resourceSliceCount": 1}


@pytest.mark.parametrize(("count", "tainted", "sizes"), [(1, 0, [1]), (128, 0, [128]), (129, 0, [128, 1]), (65, 1, [64, 1]), (64, 1, [64])])
def test_slices_are_as_large_as_the_server_allows(count: int, tainted: int, sizes: list[int]) -> None:
    found = gpus(count)
    pool = slices.desired(NODE, found, taints={gpu.name: (SICK,) for gpu in found[:tainted]}).pool
    bodies = slices.render(pool, SliceApi("v1", (1, 36)), generation=1, owner=None)
    assert [len(body["spec"]["devices"]) for body in bodies] == sizes
    names = [body["metadata"]["generateName"] for body in bodies]
    assert names == sorted(names) and names[0] == "00-gpu.intel.com-worker-1-"


def test_order_does_not_depend_on_the_order_of_discovery_and_nothing_is_published_twice() -> None:
    found = gpus(5)
    assert slices.desired(NODE, found[::-1]) == slices.desired(NODE, found)
    twice = slices.desired(NODE, [*found, found[0]])
    assert len(twice.pool.devices) == 5 and twice.dropped[0].why == "the same name twice"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_what_the_server_normalises_is_no_difference(version: str) -> None:
    pool = slices.desired(NODE, [GPU], taints={GPU.name: (SICK,)}).pool
    [body] = slices.render(pool, SliceApi.of(version, ""), generation=1, owner=None)
    stored = copy.deepcopy(body)
    device = stored["spec"]["devices"][0]
    content = device.get("basic", device)
    content["capacity"]["memory"]["value"] = "16Gi"
    content["taints"][0]["timeAdded"] = "2026-01-01T00:00:00Z"
    stored["spec"]["pool"]["generation"] = 9
    stored["spec"]["sharedCounters"] = None
    assert slice_contents.fingerprint(stored) == slice_contents.fingerprint(body)
    content["attributes"]["sriov"] = {"bool": True}
    assert slice_contents.fingerprint(stored) != slice_contents.fingerprint(body)


def test_false_zero_and_empty_text_are_values_and_absent_is_not() -> None:
    def one(value: object) -> bytes:
        return slice_contents.fingerprint({"spec": {"devices": [{"name": "a", "attributes": {"x": value}}]}})

    assert len({one({"bool": False}), one({"int": 0}), one({"string": ""}), one(None)}) == 4


def test_dropped_taints_and_attributes_are_found() -> None:
    pool = Pool(node=NODE, devices=(Device(name=DeviceName("a"), attributes={"x": 1}, taints=(SICK,)), Device(name=DeviceName("b"))))
    [sent] = slices.render(pool, SliceApi("v1beta1", (1, 33)), generation=1, owner=None)
    stored = copy.deepcopy(sent)
    assert slice_contents.dropped_fields(sent, stored) == ()
    del stored["spec"]["devices"][0]["basic"]["taints"]
    stored["spec"]["devices"][0]["basic"]["attributes"] = {}
    del stored["spec"]["devices"][1]
    assert {(one.device, one.field) for one in slice_contents.dropped_fields(sent, stored)} == {
        ("a", "taints"),
        ("a", "attributes.x"),
        ("b", "device"),
    }


def test_an_unreadable_server_version_counts_as_the_first_with_that_api() -> None:
    assert SliceApi.of("v1alpha3", "strange").counts_twice
    assert not SliceApi.of("v1beta1", "").knows_taints
    assert SliceApi.of("v1beta1", "v1.36.2").deletes_first
