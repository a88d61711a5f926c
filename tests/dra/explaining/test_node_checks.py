"""What `doctor` asks of a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from dra.explaining import checks, node_checks, slice_gpus
from dra.explaining.checks import Finding, Verdict
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import device, gpu_class, own_pod, pod, said_of_node, slice_of, warning

READY = "containerd://2.4.2"


def node(name: str = "n1", *, kubelet: str = "v1.36.3", runtime: str = READY, **more: Any) -> dict[str, Any]:
    made = world.node(name, **more)
    made["status"]["nodeInfo"] = {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}
    return made


def asked(*, readiness: Mapping[str, str] | None = None, version: str = "v1.36.3", api: str = "v1", **objects: Any) -> list[Finding]:
    given: dict[str, Any] = {"nodes": [node()], "classes": [gpu_class()], "slices": [slice_of(device(1))], "pods": [own_pod()]}
    cluster = msgspec.structs.replace(world.cluster(version, **{**given, **objects}), api=api)
    return list(node_checks.of_nodes(cluster, slice_gpus.nodes(cluster), readiness or {}))


def found(check: str, **objects: Any) -> Finding:
    [finding] = [each for each in asked(**objects) if each.check == check]
    return finding


def test_nothing_is_wrong_with_a_node_that_is_well() -> None:
    assert checks.worst(asked()) is Verdict.OK


def test_nodes_that_have_nothing_to_do_with_the_driver_are_left_alone() -> None:
    assert {each.about for each in asked(nodes=[node(), node("n2")])} == {"n1"}


def test_a_node_with_a_gpu_and_no_plugin() -> None:
    labelled = node("n2", labels={"intel.feature.node.kubernetes.io/gpu": "true"})
    [told] = [each for each in asked(nodes=[node(), labelled]) if each.about == "n2" and each.verdict is Verdict.PROBLEM]
    assert (told.check, told.seen) == ("node plugin", "no pod of the driver is here")


def test_a_node_that_is_not_ready() -> None:
    assert found("node", nodes=[node(ready="Unknown")]).verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("kubelet", "server", "api", "verdict"),
    [
        ("v1.36.3", "v1.36.3", "v1", Verdict.OK),
        ("v1.31.0", "v1.34.3", "v1", Verdict.OK),
        ("v1.30.1", "v1.31.0", "v1alpha3", Verdict.PROBLEM),
        ("v1.31.0", "v1.30.14", "v1alpha2", Verdict.PROBLEM),
        ("v1.28.1", "v1.30.14", "v1alpha2", Verdict.OK),
        ("v1.27.1", "v1.30.14", "v1alpha2", Verdict.PROBLEM),
        ("v1.37.0", "v1.36.3", "v1", Verdict.PROBLEM),
        ("v1.33.0", "v1.36.3", "v1", Verdict.OK),
        ("v1.32.0", "v1.36.3", "v1", Verdict.WARNING),
        ("", "v1.36.3", "v1", Verdict.UNKNOWN),
    ],
)
def test_kubelets_and_the_api_server_have_to_speak_the_same(kubelet: str, server: str, api: str, verdict: Verdict) -> None:
    assert found("kubelet", nodes=[node(kubelet=kubelet)], version=server, api=api).verdict is verdict


@pytest.mark.parametrize(
    ("runtime", "verdict"),
    [
        ("containerd://2.4.2", Verdict.OK),
        ("containerd://1.7.35", Verdict.UNKNOWN),
        ("containerd://1.6.9", Verdict.PROBLEM),
        ("cri-o://1.34.0", Verdict.OK),
        ("cri-o://1.22.1", Verdict.PROBLEM),
        ("docker://28.0.1", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
    ],
)
def test_container_runtimes(runtime: str, verdict: Verdict) -> None:
    assert found("container runtime", nodes=[node(runtime=runtime)]).verdict is verdict


def test_a_runtime_that_does_not_find_the_cdi_files_has_said_so() -> None:
    user = pod("p", "c", nodeName="n1")
    event = warning(user, "Failed", "CDI device injection failed: unresolvable CDI devices intel.com/gpu=x")
    event["involvedObject"]["namespace"] = "default"
    told = found("container runtime", pods=[own_pod(), user], events=[event])
    assert told.verdict is Verdict.PROBLEM and "does not find the CDI files" in told.seen


def test_a_plugin_that_is_not_ready_says_why() -> None:
    readiness = {"intel-gpu-dra/node-plugin-n1": "[ok] inventory\n[no] registered with the kubelet: it has not called yet\n"}
    told = found("node plugin", pods=[own_pod(ready=False)], readiness=readiness)
    assert told.verdict is Verdict.PROBLEM
    assert told.seen == "intel-gpu-dra/node-plugin-n1 is not Ready: registered with the kubelet: it has not called yet"
    assert found("node plugin", pods=[own_pod(restarts=7)]).verdict is Verdict.WARNING


def test_slices_that_are_not_all_there_and_those_of_a_node_that_is_gone() -> None:
    told = found("GPUs", slices=[slice_of(device(1), count=2)])
    assert told.verdict is Verdict.PROBLEM and told.seen.startswith("1 of 2 slices of generation 1")
    told = found("slices", slices=[slice_of(device(1)), slice_of(device(2), node="n9", name="old")])
    assert (told.about, told.cure) == ("n9", "kubectl delete resourceslice old")


def test_a_plugin_with_nothing_to_publish_and_devices_that_keep_pods_away() -> None:
    assert found("GPUs", slices=[]).verdict is Verdict.WARNING
    taints = [{"key": "gpu.intel.com/health", "effect": "NoExecute"}]
    told = found("GPUs", slices=[slice_of(device(1, taints=taints), device(2))])
    assert told.verdict is Verdict.WARNING and told.seen.startswith("1 of 2 keep pods away")


@pytest.mark.parametrize("slices", [[], [slice_of()]], ids=["clean", "draining"])
def test_a_node_that_the_driver_leaves(slices: list[dict[str, Any]]) -> None:
    drains = said_of_node("n1", "Decommissioning", "claim default/a is awaited", "2026-11-26T11:00:00Z")
    told = found("GPUs", slices=slices, events=[drains])
    assert told.verdict is Verdict.PROBLEM
    assert told.seen == "the driver is being removed from here, and offers nothing: claim default/a is awaited"
    back = said_of_node("n1", "BackInService", "not any more", "2026-11-26T11:30:00Z")
    assert found("GPUs", slices=slices, events=[drains, back]).verdict is Verdict.WARNING
    assert found("GPUs", slices=slices, events=[said_of_node("n2", "Decommissioning", "...")]).verdict is Verdict.WARNING


def test_a_kubelet_that_is_newer_than_its_api_server_is_called_that() -> None:
    assert "is newer than the API server" in found("kubelet", nodes=[node(kubelet="v1.37.0")]).seen
    assert "do not speak the same DRA" in found("kubelet", nodes=[node(kubelet="v1.30.1")], version="v1.31.0", api="v1alpha3").seen


def test_intels_device_plugin_beside_it() -> None:
    both = node()
    both["status"]["allocatable"]["gpu.intel.com/xe"] = "2"
    assert found("other drivers", nodes=[both]).verdict is Verdict.WARNING
    both["status"]["allocatable"]["gpu.intel.com/xe"] = "0"
    assert [each for each in asked(nodes=[both]) if each.check == "other drivers"] == []


def foreign(image: str, kind: str = "DaemonSet") -> dict[str, Any]:
    metadata = {"name": "other", "namespace": "x", "uid": "u", "ownerReferences": [{"kind": kind}]}
    return {"metadata": metadata, "spec": {"nodeName": "n1", "containers": [{"image": image}]}, "status": {"phase": "Running"}}


def test_other_drivers_are_known_by_their_images() -> None:
    told = found("other drivers", pods=[own_pod(), foreign("docker.io/intel/intel-gpu-plugin:0.32.0")])
    assert told.verdict is Verdict.WARNING and "Intel's device plugin runs here (x/other)" in told.seen
    told = found("other drivers", pods=[own_pod(), foreign("ghcr.io/intel/intel-resource-drivers/intel-gpu-resource-driver:v0.9.0")])
    assert told.verdict is Verdict.PROBLEM and "from one only" in told.seen
    controller = foreign("intel-gpu-resource-driver:v0.3.0", "ReplicaSet")
    assert [each for each in asked(pods=[own_pod(), controller]) if each.check == "other drivers"] == []


def test_a_classic_plugin_that_let_its_lease_run_out() -> None:
    def lease(renewed: str) -> dict[str, Any]:
        spec = {"renewTime": renewed, "leaseDurationSeconds": 50}
        return {"metadata": {"name": "gpu-plugin-n1", "namespace": "ns"}, "spec": spec}

    dead = [each for each in asked(leases=[lease("2026-11-26T11:50:00.000000Z")]) if "Lease" in each.seen]
    assert [each.verdict for each in dead] == [Verdict.PROBLEM] and "since 2026-11-26T11:50" in dead[0].seen
    assert [each for each in asked(leases=[lease("2026-11-26T11:59:00.000000Z")]) if "Lease" in each.seen] == []


def test_nothing_is_guessed_of_a_node_whose_pods_and_slices_were_not_read() -> None:
    cluster = world.cluster(nodes=[node(labels={node_checks.LABELS[0]: "true"})])
    blind = msgspec.structs.replace(cluster, unread={"pods": "no", "resourceslices": "no"})
    assert checks.worst(node_checks.of_nodes(blind, (), {})) is Verdict.OK
