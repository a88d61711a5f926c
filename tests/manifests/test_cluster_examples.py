"""The example clusters switch on what their Kubernetes has and the driver needs; the overlays move what has to be moved together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nursery_apps.node import flags
from tests.manifests import example_header
from tests.manifests.rendered import MANIFESTS, one, render
from tools.simcluster import releases

CLUSTERS = sorted((MANIFESTS / "examples" / "clusters").glob("*.yaml"))
EVERYWHERE = {"DynamicResourceAllocation"}
OF_OTHERS = {"ValidatingAdmissionPolicy"}
SERVED_FOR_KUBELETS = {28: "v1alpha2", 29: "v1alpha2", 30: "v1alpha2", 31: "v1alpha3", 32: "v1beta1", 33: "v1beta1"}
"""What a kubelet and a scheduler read, and is off by default."""

every_cluster = pytest.mark.parametrize("path", CLUSTERS, ids=[path.stem for path in CLUSTERS])


def extra_args(part: dict[str, Any]) -> dict[str, str]:
    """Of kubeadm v1beta3 (a mapping) and v1beta4 (a list)."""
    args = part.get("extraArgs", {})
    return args if isinstance(args, dict) else {arg["name"]: arg["value"] for arg in args}


def pairs(text: str) -> dict[str, bool]:
    return {name: value == "true" for name, _, value in (entry.partition("=") for entry in text.split(",") if entry)}


def gates_and_apis(path: Path) -> tuple[dict[str, bool], set[str], set[str]]:
    """(feature gates of the control plane, those of the kubelet, API versions switched on)"""
    docs = list(yaml.safe_load_all(path.read_text()))
    if docs[0]["kind"] == "Cluster":
        gates = docs[0].get("featureGates", {})
        return gates, set(gates), set(docs[0].get("runtimeConfig", {}))
    args = {name: extra_args(docs[0].get(name, {})) for name in ("apiServer", "controllerManager", "scheduler")}
    gates = [pairs(each.get("feature-gates", "")) for each in args.values()]
    assert gates[0] == gates[1] == gates[2], "one component without a gate is a cluster that fails in riddles"
    kubelet = docs[1].get("featureGates", {}) if len(docs) > 1 else {}
    return gates[0], set(kubelet), set(pairs(args["apiServer"].get("runtime-config", "")))


def minors(path: Path) -> range:
    header = example_header.read(path)
    return range(header.oldest, (header.newest or releases.NEWEST) + 1)


@pytest.mark.parametrize("tool", ["kubeadm", "kind"])
def test_every_release_that_needs_a_switch_has_a_cluster(tool: str) -> None:
    covered = [minor for path in CLUSTERS if path.stem.startswith(tool) for minor in minors(path)]
    assert len(covered) == len(set(covered))
    assert set(range(28, 37)) <= set(covered)


@every_cluster
def test_a_cluster_is_named_after_the_oldest_release_it_is_for(path: Path) -> None:
    assert path.stem.endswith(f"-1.{minors(path)[0]}")


@every_cluster
def test_gates_exist_in_all_releases_it_is_for(path: Path) -> None:
    gates, kubelet, apis = gates_and_apis(path)
    assert all(gates.values())
    for minor in minors(path):
        if minor < 34:
            assert gates.keys() >= EVERYWHERE and kubelet >= EVERYWHERE
            assert f"resource.k8s.io/{SERVED_FOR_KUBELETS[minor]}" in apis
        versions = tuple(name.rpartition("/")[2] for name in apis if name.startswith("resource.k8s.io/"))
        releases.release(f"1.{minor}", gates=dict.fromkeys(gates.keys() - EVERYWHERE - OF_OTHERS, True), runtime_config=versions)


@pytest.mark.parametrize(
    ("name", "root", "cdi"),
    [("overlay-k0s", "/var/lib/k0s/kubelet", "/var/run/cdi"), ("overlay-talos", "/var/lib/kubelet", "/var/cdi/dynamic")],
)
def test_an_overlay_moves_flags_mounts_and_host_paths_together(name: str, root: str, cdi: str) -> None:
    spec = one(render(f"../examples/clusters/{name}"), "DaemonSet")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    environ = {entry["name"]: entry.get("value", "x") for entry in container["env"]}

    def never(_options: object) -> int:
        raise AssertionError

    options = flags.parser(environ, run=never, discover=never, plan=never, reload=never, record=never).parse_args(container["args"])
    assert (options.kubelet_root, options.cdi_root) == (root, cdi)
    hosts = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: hosts[mount["name"]] for mount in container["volumeMounts"]}
    for path in (f"{root}/plugins/gpu.intel.com", f"{root}/plugins_registry", cdi):
        assert mounts[path] == path
    assert len([path for path in mounts if re.search("kubelet|cdi", path)]) == 3
