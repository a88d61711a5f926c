"""The Helm chart brings what `kubectl apply -k` brings, and says in words what cannot be."""

from __future__ import annotations

import copy
import json
import pathlib
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from dra import controller_settings, settings
from nursery_apps.version import VERSION
from tests.manifests import rendered
from tests.manifests.rendered import CHART, KUSTOMIZE, Doc, helm_template, one, render, render_overlay, template

CLASSIC = "intel-gpu-resource-driver"
FIXED = {"sriov": {"mode": "fixed", "layouts": [{"select": {"integrated": False}, "vfs": [{"profile": "fair-share", "count": 4}]}]}}
WATCHED = {"controller": {"enabled": True}, "alertReceiver": {"enabled": True}}
CERT_MANAGER = {"webhook": {"enabled": True, "certificate": {"from": "certManager"}}}
CHART_LABELS = {"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version"}

CLUSTER_WIDE = {
    "DeviceClass",
    "ResourceClass",
    "GpuClassParameters",
    "NodeFeatureRule",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
"""Kinds that kustomize does not know, and gives a namespace; API servers do not mind."""

SAME: dict[str, tuple[str, dict[str, Any], str, tuple[str, ...]]] = {
    "1.37": ("1.37.2", {}, "base", ()),
    "1.34": ("1.34.3", {}, "base", ()),
    "1.33": ("1.33.13", {}, "overlays/kubernetes-1.33", ()),
    "1.32": ("1.32.2", {}, "overlays/kubernetes-1.32", ()),
    "1.31": ("1.31.0", {}, "overlays/kubernetes-1.31", ()),
    "1.30": ("1.30.14", {}, "overlays/kubernetes-1.30", ()),
    "1.29": ("1.29.0", {}, "overlays/kubernetes-1.29", ()),
    "1.28": ("1.28.15", {}, "overlays/kubernetes-1.28", ()),
    "1.28 with policies": ("1.28.15", {"admissionPolicies": {"enabled": True}}, "classic", ("classic-own-node-only",)),
    "1.30 with alerts": ("1.30.14", {"alertReceiver": {"enabled": True}, "nodePlugin": {"settings": {"gracePeriod": "20s"}}}, "", ()),
    "controller": ("1.37.2", {**WATCHED, **CERT_MANAGER}, "overlays/controller", ()),
    "older kubelets": ("1.34.3", {"oldestKubelet": "1.32"}, "", ()),
    "virtual functions": ("1.37.2", {"nodePlugin": {"settings": FIXED}}, "overlays/virtual-functions", ()),
    "kubevirt": ("1.37.2", {"nodePlugin": {"settings": FIXED}}, "overlays/kubevirt", ()),
    "node feature discovery": ("1.37.2", {"nodeFeatureDiscovery": {"enabled": True}}, "overlays/node-feature-discovery", ()),
    "openshift": ("1.37.2", {"openshift": {"enabled": True}}, "overlays/openshift", ()),
    "openshift, watched": (
        "1.37.2",
        {"openshift": {"enabled": True}, **WATCHED},
        "base",
        ("controller", "alert-receiver", "openshift"),
    ),
    "simulate": ("1.37.2", {"simulate": {"enabled": True}}, "overlays/simulate", ()),
    "all simulated": ("1.37.2", {"simulate": {"enabled": True}, **WATCHED}, "base", ("controller", "alert-receiver", "simulate")),
    "unprivileged": ("1.37.2", {"nodePlugin": {"privileged": False}}, "base", ("unprivileged",)),
    "monitoring": ("1.37.2", {"monitoring": {"enabled": True}}, "base", ("prometheus",)),
    "monitoring, tainting": ("1.37.2", {"monitoring": {"enabled": True}, **WATCHED}, "", ()),
    "xpumd": ("1.37.2", {"nodePlugin": {"settings": {"health": {"xpumd": {"socket": "/run/xpumd/s"}}}}}, "base", ("xpumd",)),
}
"""Release, values, what kustomize is given: a directory and components. An empty directory: only the chart can."""


def chart(kubernetes: str, values: dict[str, Any], *served: str) -> list[Doc]:
    namespace = CLASSIC if int(kubernetes.split(".")[1]) <= 30 else "intel-gpu-dra"
    return template(
        kubernetes,
        json.dumps(values),
        namespace,
        served=("cert-manager.io/v1", "monitoring.coreos.com/v1", "nfd.k8s-sigs.io/v1alpha1", *served),
    )


def comparable(docs: list[Doc]) -> dict[tuple[str, str, str], Doc]:
    """By kind, namespace and name; without what only one of the two tools brings."""
    found = {}
    for doc in copy.deepcopy(docs):
        metadata = doc["metadata"]
        annotations = metadata.get("annotations", {})
        if doc["kind"] in ("Namespace", "Certificate", "Issuer") or "helm.sh/hook" in annotations:
            continue
        metadata["labels"] = {name: value for name, value in metadata.get("labels", {}).items() if name not in CHART_LABELS}
        if doc["kind"] in CLUSTER_WIDE:
            metadata.pop("namespace", None)
        pod = doc.get("spec", {}).get("template") or {"metadata": {}, "spec": {"containers": []}}
        pod["metadata"].get("annotations", {}).pop("gpu.intel.com/ports", None)
        for place in (metadata, pod["metadata"]):
            for name in ("labels", "annotations"):
                if not place.get(name):
                    place.pop(name, None)
        for container in pod["spec"]["containers"]:
            for name in ("env", "volumeMounts", "ports"):
                container[name] = sorted(container.get(name, []), key=by_content)
        pod["spec"]["volumes"] = sorted(pod["spec"].get("volumes", []), key=by_content)
        if doc["kind"] == "ConfigMap":
            doc["data"] = {name: yaml.safe_load(text) for name, text in doc["data"].items()}
        if doc["kind"] in ("ClusterRole", "Role"):
            doc["rules"] = sorted(doc["rules"], key=by_content)
        found[doc["kind"], metadata.get("namespace", ""), metadata["name"]] = doc
    return found


@pytest.mark.parametrize("case", [name for name, (_, _, resources, _) in SAME.items() if resources])
def test_chart_and_kustomize_agree(case: str, tmp_path: pathlib.Path) -> None:
    kubernetes, values, resources, components = SAME[case]
    ours = comparable(chart(kubernetes, values))
    theirs = comparable(render_overlay(tmp_path, resources, *components) if components else render(resources))
    if case == "xpumd":  # the component leaves the setting to you
        for docs in (ours, theirs):
            del docs["ConfigMap", "intel-gpu-dra", "node-plugin-settings"]
        [mount] = [each for doc in ours.values() if doc["kind"] == "DaemonSet" for each in mounts(doc) if each["name"] == "xpumd"]
        assert mount["mountPath"] == "/run/xpumd"
    assert sorted(ours) == sorted(theirs)
    for name, doc in theirs.items():
        assert ours[name] == doc


def by_content(part: Doc) -> str:
    return json.dumps(part, sort_keys=True)


def mounts(doc: Doc) -> list[Doc]:
    [container] = doc["spec"]["template"]["spec"]["containers"]
    return list(container["volumeMounts"])


def test_the_hook_is_what_kustomize_has_for_cleaning_up() -> None:
    for kubernetes, directory in (("1.37.2", "cleanup"), ("1.28.15", "cleanup-classic")):
        hooks = [
            doc
            for doc in copy.deepcopy(chart(kubernetes, {"cleanup": {"enabled": True}}))
            if "helm.sh/hook" in doc["metadata"].get("annotations", {})
        ]
        for doc in hooks:
            assert doc["metadata"].pop("annotations")["helm.sh/hook"] == "pre-delete"
        [container] = one(hooks, "Job")["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["cleanup", "--timeout=5m"]
        container["args"] = ["cleanup"]
        assert comparable(hooks) == comparable(render(directory))


@pytest.mark.parametrize("case", SAME)
def test_both_programs_take_the_settings_that_the_chart_writes(case: str) -> None:
    kubernetes, values, _, _ = SAME[case]
    docs = chart(kubernetes, values)
    written = one(docs, "ConfigMap", "node-plugin-settings")["data"]["settings.yaml"]
    settings.decode_node(yaml.safe_load(written), "settings.yaml")
    for doc in docs:
        if doc["kind"] == "ConfigMap" and doc["metadata"]["name"] == "controller-settings":
            decoded = controller_settings.decode_controller(yaml.safe_load(doc["data"]["controller.yaml"]), "controller.yaml")
            assert (decoded.alerts.port != 0) == bool(values.get("alertReceiver", {}).get("enabled"))
            assert (decoded.webhook.port != 0) == bool(values.get("webhook", {}).get("enabled"))


def test_another_namespace_is_named_everywhere() -> None:
    for kubernetes in ("1.28.15", "1.30.14", "1.37.2"):
        values = {**WATCHED} if kubernetes != "1.37.2" else {**WATCHED, "webhook": {"enabled": True}}
        text = yaml.safe_dump(template(kubernetes, json.dumps(values), "elsewhere"))
        assert "intel-gpu-resource-driver" not in text
        assert "namespace: intel-gpu-dra" not in text and "serviceaccount:intel-gpu-dra" not in text


def test_other_places_of_kubelet_and_container_runtime() -> None:
    root = "/var/lib/k0s/kubelet"
    daemons = one(chart("1.37.2", {"nodePlugin": {"kubeletRoot": root, "cdiRoot": "/var/cdi/dynamic"}}), "DaemonSet")
    pod = daemons["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environ = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (environ["KUBELET_ROOT"], environ["CDI_ROOT"]) == (root, "/var/cdi/dynamic")
    places = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    inside = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("plugins", "registry", "cdi"):
        assert inside[name] == places[name]
    assert (places["registry"], places["cdi"]) == (f"{root}/plugins_registry", "/var/cdi/dynamic")


def test_another_port_of_the_probes_is_the_ports_everywhere() -> None:
    [container] = one(chart("1.37.2", {"nodePlugin": {"settings": {"probes": {"port": 1234}}}}), "DaemonSet")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["ports"] == [{"name": "http", "containerPort": 1234}]
    [container] = one(chart("1.37.2", {"nodePlugin": {"settings": {"probes": {"port": 0}}}}), "DaemonSet")["spec"]["template"]["spec"][
        "containers"
    ]
    assert not {"ports", "readinessProbe", "livenessProbe"} & set(container)


@pytest.mark.parametrize(
    ("kubernetes", "values", "said"),
    [
        ("1.27.16", {}, "chart requires kubeVersion: >=1.28.0-0"),
        ("1.37.2", {"nodePlugin": {"settings": {"deviceEvents": {"source": "udev"}}}}, "needs nodePlugin.hostNetwork: true"),
        ("1.37.2", {"nodePlugin": {"hostUsers": False}}, "the kernel sends its device events to no user namespace but the first"),
        ("1.37.2", {"nodePlugin": {"privileged": False, "settings": FIXED}}, "sriov.mode: fixed needs nodePlugin.privileged: true"),
        ("1.30.14", {"nodePlugin": {"privileged": False}}, "needs nodePlugin.settings.sriov.mode: off on Kubernetes 1.30"),
        (
            "1.37.2",
            {"nodePlugin": {"privileged": False, "settings": {"health": {"recovery": {"mode": "rebind"}}}}},
            "health.recovery needs nodePlugin.privileged: true",
        ),
        ("1.30.14", {"controller": {"enabled": False}}, "up to 1.30 it is the controller that allocates"),
        ("1.37.2", {"alertReceiver": {"enabled": True}}, "alertReceiver.enabled needs controller.enabled: true"),
        ("1.37.2", {"webhook": {"enabled": True}}, "webhook.enabled needs controller.enabled: true"),
        ("1.30.14", {"webhook": {"enabled": True}}, "webhook.enabled cannot be on Kubernetes 1.30"),
        ("1.37.2", {**WATCHED, **CERT_MANAGER}, "does not serve cert-manager.io/v1"),
        ("1.37.2", {"monitoring": {"enabled": True}}, "does not serve monitoring.coreos.com/v1"),
        ("1.37.2", {"nodeFeatureDiscovery": {"enabled": True}}, "does not serve nfd.k8s-sigs.io/v1alpha1"),
        ("1.33.13", {"classes": {"extendedResourceName": "intel.com/gpu"}}, "extendedResourceName needs Kubernetes 1.34"),
        ("1.33.13", {"oldestKubelet": "1.34"}, "oldestKubelet: 1.34 is newer than the API server, 1.33"),
        ("1.31.0", {"oldestKubelet": "1.30"}, "Upgrade these nodes first"),
        ("1.37.2", {"nodePlugin": {"settings": {"sriov": {"mod": "fixed"}}}}, "additional properties 'mod' not allowed"),
        ("1.37.2", {"nodePlugin": {"kubeletRoot": "var/lib/kubelet"}}, "/nodePlugin/kubeletRoot"),
        ("1.37.2", {"nodePlugin": {"cdiRoot": "/var/run/cdi/"}}, "/nodePlugin/cdiRoot"),
        ("1.37.2", {"controller": {"replicas": 0}}, "/controller/replicas"),
        ("1.37.2", {"replicas": 2}, "additional properties 'replicas' not allowed"),
    ],
)
def test_what_cannot_be_is_said_in_words(kubernetes: str, values: dict[str, Any], said: str) -> None:
    done = helm_template(kubernetes, values)
    assert done.returncode != 0
    assert said in done.stderr


def leaves(values: Any, *path: str) -> list[tuple[str, ...]]:
    inner = [each for name, value in values.items() for each in leaves(value, *path, name)] if isinstance(values, dict) else []
    return [*inner, path] if path else inner


@pytest.mark.parametrize("path", leaves(yaml.safe_load((CHART / "values.yaml").read_text())), ids=".".join)
def test_a_value_that_is_taken_away_is_done_without_or_asked_for(path: tuple[str, ...]) -> None:
    """`--set name=null` takes a default away."""
    values: Any = None
    for name in reversed(path):
        values = {name: values}
    done = helm_template("1.37.2", values)
    assert done.returncode == 0 or "don't meet the specifications of the schema" in done.stderr, done.stderr


def test_names_that_look_like_numbers_are_names() -> None:
    docs = template("1.37.2", json.dumps({**WATCHED, "webhook": {"enabled": True}}), "123", release="456")
    assert {doc["metadata"].get("namespace", "123") for doc in docs} == {"123"}
    assert {doc["metadata"]["labels"]["app.kubernetes.io/instance"] for doc in docs} == {"456"}


def test_helm_has_nothing_to_complain_of() -> None:
    found = rendered.helm()
    if found is None:
        pytest.skip("there is no helm: `tools/cluster build` makes one")
    done = subprocess.run([found, "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_what_is_rendered_to_be_applied_cleans_nothing_up() -> None:
    """Argo CD and `helm template | kubectl apply` take a hook for one more object."""
    assert [doc for doc in chart("1.37.2", {}) if doc["kind"] == "Job"] == []


def test_the_default_values_pass_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_every_value_is_in_the_schema_and_every_field_of_the_schema_is_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def differences(values: Any, described: Any, path: str) -> list[str]:
        if not isinstance(values, dict) or "properties" not in described or path.endswith(".settings"):
            return []
        fields = described["properties"]
        odd = [f"{path}.{name}" for name in set(values) ^ (set(fields) - {"global"})]
        return odd + [each for name in values for each in differences(values[name], fields.get(name, {}), f"{path}.{name}")]

    assert differences(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "") == []


def test_the_chart_is_of_the_programs_version() -> None:
    head = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert head["version"] == head["appVersion"] == VERSION


def test_linked_files_are_in_the_chart() -> None:
    assert (CHART / "files").resolve() == KUSTOMIZE and (CHART / "crds").resolve() == rendered.MANIFESTS / "crds"


def test_the_privileges_are_those_of_the_features_that_are_on() -> None:
    [container] = one(chart("1.37.2", {"nodePlugin": {"privileged": False}}), "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_alerts_lead_to_your_pages_and_carry_the_labels_that_the_operator_wants() -> None:
    values = {"monitoring": {"enabled": True, "labels": {"release": "stack"}, "runbooks": "https://wiki.example/gpu/"}, **WATCHED}
    found = [doc for doc in chart("1.37.2", values) if doc["kind"] in ("PodMonitor", "PrometheusRule")]
    assert sorted(doc["kind"] for doc in found) == ["PodMonitor", "PodMonitor", "PrometheusRule", "PrometheusRule"]
    assert {doc["metadata"]["labels"]["release"] for doc in found} == {"stack"}
    pages = [
        rule["annotations"].get("runbook_url", "")
        for doc in found
        if "groups" in doc["spec"]
        for group in doc["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert all(page.startswith("https://wiki.example/gpu/docs/runbooks/") for page in pages if page)
    assert any(pages)
