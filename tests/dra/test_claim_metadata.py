"""A container finds its devices where Kubernetes says, and no name that a user gives leads anywhere else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import cdi, claim_metadata
from dra.devices import Gpu
from dra.kube.claims import ResourceClaim
from dra.kube.meta import ObjectMeta
from dra.names import Bdf
from tests.fakes.lent_gpu import LENT, UID, grant, record

TWO = Gpu(bdf=Bdf("0000:3a:00.0"), device="0xe211", driver="xe")
GPUS = {gpu.name: gpu for gpu in (LENT, TWO)}


def objects(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_paths_are_those_of_kubernetes() -> None:
    [file] = claim_metadata.files(record(), GPUS)
    assert file.name == f"{UID}_gpu.json" and claim_metadata.uid_of_file(file.name) == UID
    in_container = "/var/run/kubernetes.io/dra-device-attributes"
    assert file.container_path == f"{in_container}/resourceclaims/vm/gpu/gpu.intel.com-metadata.json"
    [file] = claim_metadata.files(record(name="pod-gpu-x7k2p", pod_claim="gpu"), GPUS)
    assert file.container_path == f"{in_container}/resourceclaimtemplates/gpu/gpu/gpu.intel.com-metadata.json"


def test_the_content_in_every_version_newest_first() -> None:
    [file] = claim_metadata.files(record(pod_claim="mine"), GPUS)
    new, old = objects(file.data)
    assert (new.pop("apiVersion"), old.pop("apiVersion")) == ("metadata.resource.k8s.io/v1beta1", "metadata.resource.k8s.io/v1alpha1")
    assert new == old
    [request] = new.pop("requests")
    assert new == {
        "kind": "DeviceMetadata",
        "metadata": {"name": "vm", "namespace": "default", "uid": UID, "generation": 1},
        "podClaimName": "mine",
    }
    [device] = request["devices"]
    attributes = device.pop("attributes")
    assert (request["name"], device) == ("gpu", {"driver": "gpu.intel.com", "pool": "node1", "name": LENT.name})
    assert attributes["resource.kubernetes.io/pciBusID"] == {"string": "0000:18:00.0"}
    assert attributes["integrated"] == {"bool": False}
    assert attributes["tiles"] == {"int": 1}
    assert attributes["driverVersion"] == {"version": "6.17.8+amd64"}
    assert len(attributes) <= 32, "more are refused by readers"


def test_a_request_lists_all_its_devices_and_a_gpu_that_is_gone_keeps_its_address() -> None:
    both = record(grant(LENT, "a", "b"), grant(TWO, "b"))
    found = {file.request: objects(file.data)[0]["requests"][0]["devices"] for file in claim_metadata.files(both, {TWO.name: TWO})}
    assert {request: [device["name"] for device in devices] for request, devices in found.items()} == {
        "a": [LENT.name],
        "b": [LENT.name, TWO.name],
    }
    assert found["a"][0]["attributes"] == {"resource.kubernetes.io/pciBusID": {"string": "0000:18:00.0"}}


def test_the_profile_of_a_vf_is_told_as_in_the_slice() -> None:
    [file] = claim_metadata.files(record(), GPUS, profiles={LENT.name: "b60_m1"})
    assert objects(file.data)[0]["requests"][0]["devices"][0]["attributes"]["profile"] == {"string": "b60_m1"}


def test_a_container_with_the_request_sees_the_file_and_cannot_change_it() -> None:
    claim = record(grant(LENT, "vm", driver="vfio-pci"), grant(TWO, "other"))
    [file] = [file for file in claim_metadata.files(claim, GPUS) if file.request == "vm"]
    mounts = claim_metadata.mounts(claim_metadata.files(claim, GPUS), "/var/lib/kubelet/plugins/gpu.intel.com/dra-device-metadata")
    [device] = json.loads(cdi.render(claim, GPUS, mounts=mounts) or b"")["devices"]
    assert device["name"] == f"{UID}-{LENT.name}-vfio-pci"
    assert device["containerEdits"]["mounts"] == [
        {
            "hostPath": f"/var/lib/kubelet/plugins/gpu.intel.com/dra-device-metadata/{file.name}",
            "containerPath": file.container_path,
            "options": ["ro", "bind"],
        }
    ]


def test_a_claim_of_another_driver_has_no_files_of_ours() -> None:
    assert claim_metadata.files(record(grant(LENT), name="", namespace="", origin="intel:unversioned"), GPUS) == ()


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", "/", "", ".", "A", "a..b", "-a", "a\n", "a_b", "ä", "a,ro=false"])
def test_what_is_no_name_enters_no_path(name: str) -> None:
    assert claim_metadata.files(record(name=name), GPUS) == ()
    assert claim_metadata.files(record(namespace=name), GPUS) == ()
    assert claim_metadata.files(record(grant(LENT, name)), GPUS) == ()
    assert pod_claim({claim_metadata.POD_CLAIM_ANNOTATION: name}) == ""


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_text_leads_out_of_the_directory(namespace: str, name: str, request: str) -> None:
    for file in claim_metadata.files(record(grant(LENT, request), namespace=namespace, name=name), GPUS):
        assert file.name == f"{UID}_{request}.json" and "/" not in file.name
        assert file.container_path.split("/")[-3:-1] == [name, request]


def pod_claim(annotations: dict[str, str] | None) -> str:
    return claim_metadata.pod_claim_of(ResourceClaim(ObjectMeta(name="c", annotations=annotations)))


def test_a_claim_from_a_template_knows_what_its_pod_calls_it() -> None:
    assert pod_claim({"resource.kubernetes.io/pod-claim-name": "gpu"}) == "gpu"
    assert pod_claim(None) == ""


def test_what_did_not_change_is_the_same_bytes() -> None:
    moved = {**GPUS, LENT.name: msgspec.structs.replace(LENT, numa=1)}
    assert claim_metadata.files(record(), GPUS) == claim_metadata.files(record(), dict(GPUS))
    assert claim_metadata.files(record(), GPUS) != claim_metadata.files(record(), moved)
