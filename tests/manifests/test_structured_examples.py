"""The examples for users: as the API wants them, with a head that can be read, and pods that run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dra import opaque_config, settings
from nursery_apps.edges import yaml_text
from tests.fakes import plugin_process
from tests.manifests import example_header, strict_models
from tests.manifests.rendered import MANIFESTS
from tools.simcluster import kinds, releases, shapes
from tools.simcluster.cluster import SimCluster

ROOT = MANIFESTS.parent
EXAMPLES = sorted((MANIFESTS / "examples" / "structured").glob("*.yaml"))
MACHINE = "server-8x-flex170"
"""What the examples are written for: every way to ask can be met there."""
UNPLAYED = {"extended-resource": "simcluster's scheduler makes no claims of its own"}

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def first_and_last(path: Path) -> list[int]:
    header = example_header.read(path)
    return sorted({header.oldest, header.newest or releases.NEWEST})


def test_there_are_examples_to_look_at() -> None:
    assert len(EXAMPLES) >= 16
    assert set(UNPLAYED) <= {path.stem for path in EXAMPLES}


@every_example
def test_what_an_example_needs_is_said_at_its_head(path: Path) -> None:
    header = example_header.read(path)
    assert header.about.endswith(".")
    versions = {doc["apiVersion"] for doc in documents(path)}
    assert not (header.oldest < 34 and "resource.k8s.io/v1" in versions), "1.34 was the first to serve it"
    for minor in first_and_last(path):
        releases.release(f"1.{minor}", gates=header.gates_to_switch_on(minor))
    for gate, default in header.gates.items():
        assert releases.release(f"1.{default}").has(gate) and not releases.release(f"1.{default - 1}").has(gate)
    if header.settings is not None:
        data = (ROOT / header.settings).read_bytes()
        settings.decode_node(yaml_text.load(data, header.settings), header.settings)


@every_example
def test_an_example_is_what_the_api_wants(path: Path) -> None:
    for doc in documents(path):
        assert strict_models.faults(doc) == []


@every_example
def test_configuration_of_an_example_is_taken(path: Path) -> None:
    for doc in documents(path):
        spec = doc.get("spec", {}).get("spec", doc.get("spec", {}))
        for entry in (spec.get("devices") or {}).get("config", ()):
            opaque_config.decode(msgspec.json.encode(entry["opaque"]["parameters"]))


def test_a_field_that_does_not_exist_is_found() -> None:
    [template, pod] = documents(next(path for path in EXAMPLES if path.stem == "several-gpus"))
    template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["cuont"] = 2
    assert strict_models.faults(template) == ["ResourceClaimTemplate.spec.spec.devices.requests[0].exactly.cuont: unknown"]
    del pod["spec"]["containers"]
    assert "containers" in strict_models.faults(pod)[0]


def create(cluster: SimCluster, doc: dict[str, Any]) -> None:
    kind = cluster.registry.kind(doc["apiVersion"], doc["kind"])
    held = shapes.to_held(kind, doc["apiVersion"].rpartition("/")[2], doc)
    cluster.create(kind, held, doc["metadata"].get("namespace", "default"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "minor"),
    [pytest.param(path, minor, id=f"{path.stem}-1.{minor}") for path in EXAMPLES for minor in first_and_last(path)],
)
async def test_pods_of_an_example_run(path: Path, minor: int) -> None:
    if path.stem in UNPLAYED:
        pytest.skip(UNPLAYED[path.stem])
    header = example_header.read(path)
    async with plugin_process.node(MACHINE, kubernetes=f"1.{minor}", gates=header.gates_to_switch_on(minor)) as here:
        if header.settings is not None:
            here.settings.write_text((ROOT / header.settings).read_text() + "probes: {port: 0}\n")
        await here.start()
        for module in header.modules:
            await here.simulate(op="modprobe", driver=module)
        await here.cluster.wait(kinds.SLICE, lambda slices: any(each["spec"].get("devices") for each in slices), "devices", deadline=15)
        docs = documents(path)
        for doc in docs:
            create(here.cluster, doc)
        pods = [doc["metadata"] for doc in docs if doc["kind"] == "Pod"]
        for pod in pods:
            namespace = pod.get("namespace", "default")
            await here.cluster.wait_pod(pod["name"], namespace=namespace, deadline=20)
            for container, injected in here.cluster.injected(pod["name"], namespace=namespace).items():
                assert injected.device_nodes, f"container {container} of {pod['name']} got nothing"
        for pod in pods:
            here.cluster.delete_pod(pod["name"], namespace=pod.get("namespace", "default"))
        for pod in pods:
            await here.cluster.wait_pod_gone(pod["name"], namespace=pod.get("namespace", "default"), deadline=20)
