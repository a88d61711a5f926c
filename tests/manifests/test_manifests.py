"""The manifests say what the code needs: no more rights, the same names, paths and port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dra import attributes, discovery, opaque_config, settings
from dra.devices import Gpu
from dra.kube.claims import Config
from dra.settings import NodePluginConfiguration
from nursery_apps.node import flags
from tests.fakes import machines
from tools.simcluster import expressions

MANIFESTS = Path(__file__).parents[2] / "manifests"
BASE = [doc for path in sorted((MANIFESTS / "base").glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]


def one(kind: str) -> Any:
    [found] = [doc for doc in BASE if doc.get("kind") == kind]
    return found


def container() -> Any:
    [only] = one("DaemonSet")["spec"]["template"]["spec"]["containers"]
    return only


def test_the_plugin_may_do_what_it_does_and_no_more() -> None:
    rights = {(resource, verb) for rule in one("ClusterRole")["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert rights == {
        *(("nodes", verb) for verb in ("get", "list", "watch")),
        *(("resourceslices", verb) for verb in ("get", "list", "watch", "create", "update", "delete")),
        *(("resourceclaims", verb) for verb in ("get", "list")),
        *(("events", verb) for verb in ("create", "patch")),
    }


def test_the_policy_speaks_of_the_account_that_the_pods_use() -> None:
    account = f"system:serviceaccount:{one('Namespace')['metadata']['name']}:{one('ServiceAccount')['metadata']['name']}"
    [condition] = one("ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    assert account in condition["expression"]
    assert one("DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"] == one("ServiceAccount")["metadata"]["name"]


def test_flags_and_variables_are_known() -> None:
    def never(options: object) -> int:
        raise AssertionError

    environ = {entry["name"]: entry.get("value", "given") for entry in container()["env"]}
    options = flags.parser(environ, run=never, discover=never, plan=never, reload=never).parse_args(container()["args"])
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
    document = yaml.safe_load((MANIFESTS / "base" / "settings.yaml").read_text())
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
            assert image.get("newTag", flags.VERSION) == flags.VERSION
