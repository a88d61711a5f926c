"""The manifests say what the code needs: no more rights, the same names, paths and port."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dra import attributes, discovery, opaque_config, settings
from dra.devices import Gpu
from dra.health.health_settings import Xpumd
from dra.kube.claims import Config
from dra.names import DRIVER_NAME
from dra.settings import NodePluginConfiguration
from dra.structured import expressions
from nursery_apps.node import flags
from nursery_apps.version import VERSION
from tests.fakes import machines
from tests.manifests import rendered
from tests.manifests.rendered import KUSTOMIZE, MANIFESTS, render_overlay

BASE = rendered.read("base", "node-plugin")


def one(kind: str) -> Any:
    return rendered.one(BASE, kind)


def container() -> Any:
    [only] = one("DaemonSet")["spec"]["template"]["spec"]["containers"]
    return only


def test_the_plugin_may_do_what_it_does_and_no_more() -> None:
    assert rendered.rights(one("ClusterRole")) == {
        *(("nodes", verb) for verb in ("get", "list", "watch")),
        *(("resourceslices", verb) for verb in ("get", "list", "watch", "create", "update", "delete")),
        *(("resourceclaims", verb) for verb in ("get", "list")),
        ("resourceclaims/status", "patch"),
        ("resourceclaims/driver", "associated-node:patch"),
        *(("events", verb) for verb in ("create", "patch")),
    }


def test_the_right_to_speak_of_devices_is_for_those_of_the_driver() -> None:
    [rule] = [rule for rule in one("ClusterRole")["rules"] if "resourceclaims/driver" in rule["resources"]]
    assert rule["resourceNames"] == [DRIVER_NAME]


def test_the_policies_speak_of_the_account_that_the_pods_use() -> None:
    account = f"system:serviceaccount:{one('Namespace')['metadata']['name']}:{one('ServiceAccount')['metadata']['name']}"
    policies = [doc for doc in BASE if doc.get("kind") == "ValidatingAdmissionPolicy"]
    assert [doc["metadata"]["name"] for doc in policies] == ["intel-gpu-dra-own-node-only", "intel-gpu-dra-own-claims-only"]
    for policy in policies:
        [condition] = policy["spec"]["matchConditions"]
        assert account in condition["expression"]
        binding = rendered.one(BASE, "ValidatingAdmissionPolicyBinding", policy["metadata"]["name"])
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert one("DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"] == one("ServiceAccount")["metadata"]["name"]


def test_flags_and_variables_are_known() -> None:
    def never(options: object) -> int:
        raise AssertionError

    environ = {entry["name"]: entry.get("value", "given") for entry in container()["env"]}
    options = flags.parser(environ, run=never, discover=never, plan=never, reload=never, record=never).parse_args(container()["args"])
    assert (options.node_name, options.sysfs_root, options.dev_root) == ("given", "/host/sys", "/host/dev")
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    wanted = {f"{options.kubelet_root}/plugins/gpu.intel.com", f"{options.kubelet_root}/plugins_registry", options.cdi_root}
    assert wanted | {options.sysfs_root, options.dev_root, str(Path(options.config).parent)} == mounts


def test_the_kubelets_directories_have_one_name_inside_and_outside() -> None:
    volumes = {volume["name"]: volume for volume in one("DaemonSet")["spec"]["template"]["spec"]["volumes"]}
    for mount in container()["volumeMounts"]:
        if mount["mountPath"].startswith("/var/"):
            assert volumes[mount["name"]]["hostPath"]["path"] == mount["mountPath"]


def test_settings_and_port_are_the_defaults() -> None:
    document = yaml.safe_load((KUSTOMIZE / "node-plugin" / "settings.yaml").read_text())
    assert settings.decode_node(document, "settings.yaml") == NodePluginConfiguration()
    [port] = container()["ports"]
    assert port["containerPort"] == NodePluginConfiguration().probes.port


def selected(class_name: str, gpu: Gpu) -> bool:
    [device_class] = [doc for doc in BASE if doc.get("kind") == "DeviceClass" and doc["metadata"]["name"] == class_name]
    said = {name: {"value": value} for name, value in attributes.of(gpu).items() if isinstance(value, bool | int | str)}
    device = expressions.device_variable("gpu.intel.com", {"attributes": said})
    return all(expressions.holds(selector["cel"]["expression"], device) for selector in device_class["spec"]["selectors"])


def test_classes_select_what_their_claims_can_have() -> None:
    [card, *vfs] = discovery.scan(machines.kernel("server-4x-b60-4vf")).gpus[:5]
    [integrated] = discovery.scan(machines.kernel("laptop-iris-xe")).gpus
    vf_of_integrated = msgspec.structs.replace(vfs[0], integrated=True)
    gpus = (card, vfs[0], integrated, vf_of_integrated)
    assert [selected("gpu.intel.com", gpu) for gpu in gpus] == [True, True, True, True]
    assert [selected("gpu-vf.intel.com", gpu) for gpu in gpus] == [False, True, False, True]
    assert [selected("gpu-vfio.intel.com", gpu) for gpu in gpus] == [True, True, False, True]


@pytest.mark.parametrize(
    ("class_name", "admin", "effective"),
    [
        ("gpu-vfio.intel.com", False, opaque_config.Effective(driver="vfio-pci")),
        ("gpu-monitor.intel.com", True, opaque_config.Effective(monitor=True)),
    ],
)
def test_what_a_class_says_to_the_driver_is_taken(class_name: str, admin: bool, effective: opaque_config.Effective) -> None:
    [device_class] = [doc for doc in BASE if doc.get("kind") == "DeviceClass" and doc["metadata"]["name"] == class_name]
    config = msgspec.json.decode(msgspec.json.encode(device_class["spec"]["config"]), type=list[Config])
    assert opaque_config.effective(config, "gpu", admin=admin) == effective


def test_images_have_a_version() -> None:
    for path in MANIFESTS.rglob("kustomization.yaml"):
        for image in yaml.safe_load(path.read_text()).get("images", []):
            assert image.get("newTag", VERSION) == VERSION


def test_the_component_for_xpumd_brings_the_directory_of_its_socket(tmp_path: Path) -> None:
    [example] = msgspec.json.schema(Xpumd)["$defs"]["Xpumd"]["properties"]["socket"]["examples"]
    pod = rendered.one(render_overlay(tmp_path, "base", "xpumd"), "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "xpumd"]
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "xpumd"]
    assert mount["mountPath"] == volume["hostPath"]["path"] == posixpath.dirname(example)
    assert volume["hostPath"]["type"] == "DirectoryOrCreate", "a daemon that is not there yet keeps no plugin from starting"
