"""Every example for users: its pods become Ready, or its head says why they cannot on this Kubernetes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest
import yaml

from dra import settings
from nursery_apps.edges import yaml_text
from tests.e2e.api import Api, Doc
from tests.e2e.driver import ROOT
from tests.e2e.pods import BUSYBOX, STAY, is_ready
from tests.e2e.rollout.release import Release, is_classic
from tests.manifests import example_header
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import until

EXAMPLES = sorted((ROOT / "manifests" / "examples" / "structured").glob("*.yaml"))
NAMESPACE = "examples"


@pytest.fixture(scope="module")
def running(release: Release) -> Iterator[Release]:
    if is_classic(release.api):
        pytest.skip("claims are written differently up to Kubernetes 1.30: tests/e2e/classic has those examples")
    release.install()
    yield release
    release.uninstall()


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_pods_of_an_example_become_ready(running: Release, cluster: Cluster, path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    header = example_header.read(path)
    major, minor = running.api.version
    if not header.runs_on(minor):
        pytest.skip(f"written for another Kubernetes than {major}.{minor}: {kubernetes(path)}")
    off = [gate for gate in header.gates_to_switch_on(minor) if gate not in cluster.release.gates]
    if off:
        pytest.skip(f"needs the feature gate {off[0]}, which {major}.{minor} has not or not well enough")
    apply_settings(running, cluster, header.settings)
    for module in header.modules:
        running.driver.machine("modprobe", module)
    docs = [adapted(doc) for doc in yaml.safe_load_all(path.read_text())]
    try:
        (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([namespace(NAMESPACE), *docs]))
        running.driver.kubectl("apply", "-f", str(tmp_path / "all.yaml"))
        for doc in docs:
            if doc["kind"] == "Pod":
                ready(running.api, doc["metadata"]["name"], doc["metadata"].get("namespace", NAMESPACE))
    finally:
        remove(running.api, docs)


def kubernetes(path: pathlib.Path) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith("# Kubernetes:"))[2:]


def namespace(name: str) -> Doc:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def adapted(doc: Doc) -> Doc:
    """In a namespace, and with an image that is there; the command only stays."""
    for container in doc["spec"]["containers"] if doc["kind"] == "Pod" else []:
        container |= {"image": BUSYBOX, "command": ["/bin/sh", "-c", STAY]}
        container.pop("args", None)
    if doc["kind"] == "Pod":
        doc["spec"]["terminationGracePeriodSeconds"] = 0
    if doc["kind"] not in ("Namespace", "DeviceClass"):
        doc["metadata"].setdefault("namespace", NAMESPACE)
    return doc


def apply_settings(release: Release, cluster: Cluster, file: str | None) -> None:
    """Until the plugin has taken them."""
    text = (ROOT / file).read_text() if file else "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"
    wanted = settings.decode_node(yaml_text.load(text.encode(), str(file)), str(file))
    applied = cluster.site.root / "kubelet" / "plugins" / "gpu.intel.com" / "applied-settings.json"

    def so() -> bool:
        return settings.decode_node(json.loads(applied.read_bytes()), str(applied)) == wanted

    if not so():
        release.api.patch("ConfigMap", "node-plugin-settings", {"data": {"settings.yaml": text}}, release.namespace)
        release.driver.refresh_settings()
        until("the settings of the example", so, seconds=90, look="the plugin's log")


def ready(api: Api, name: str, where: str) -> None:
    api.wait("Pod", lambda pods: is_ready(pods.get(name)), namespace=where, what=f"pod {name} Ready", seconds=60)


def remove(api: Api, docs: list[Doc]) -> None:
    """Everything, claims with their devices too."""
    spaces = {NAMESPACE, *(doc["metadata"]["name"] for doc in docs if doc["kind"] == "Namespace")}
    for space in spaces:
        for pod in api.list("Pod", space):
            api.delete("Pod", pod["metadata"]["name"], space, grace=0)
        api.delete("Namespace", space)
    for doc in docs:
        if doc["kind"] == "DeviceClass":
            api.delete("DeviceClass", doc["metadata"]["name"])
    api.wait("Namespace", lambda found: not spaces & set(found), what="the end of the example's namespaces")
