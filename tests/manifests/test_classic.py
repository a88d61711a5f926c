"""The manifests for Kubernetes 1.28 to 1.30 say what controller and node plugin need there: rights, paths, kinds, settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from dra import controller_settings
from dra.classic import parameters, state_patch
from dra.classic.inventory import AllocatableGpu, AllocatedGpu, DeviceType, GpuAllocationState
from dra.classic.names import CLASSIC_DRIVER_NAME, GROUP_VERSION, DeviceUid, heartbeat_name
from dra.classic.parameters import ClaimParameters, ClassParameters
from dra.controller_settings import ControllerConfiguration
from dra.kube.classic import GpuClaimParameters, GpuClassParameters, ResourceClaim, ResourceClass
from dra.kube.meta import OwnerReference
from nursery_apps.controller import flags as controller_flags
from nursery_apps.node import flags as node_flags
from nursery_apps.version import VERSION
from tests.manifests.rendered import KUSTOMIZE, MANIFESTS, one, read, render, rights
from tools.simcluster import structural

CLASSIC = read("classic", "controller")
SCHEMAS = {
    doc["spec"]["names"]["kind"]: doc["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for doc in read("../crds")
    if doc["kind"] == "CustomResourceDefinition"
}
EXAMPLES = sorted((MANIFESTS / "examples" / "classic").glob("*.yaml"))
NAMESPACE = one(CLASSIC, "Namespace")["metadata"]["name"]
OVERLAYS = ("kubernetes-1.28", "kubernetes-1.29", "kubernetes-1.30")


def pod_of(docs: list[dict[str, Any]], kind: str) -> tuple[Any, Any]:
    """(pod's spec, its only container)"""
    spec = one(docs, kind)["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container


# --- rights -----------------------------------------------------------------------------------------------------------------------------


def test_the_plugin_may_do_what_it_does_and_no_more() -> None:
    assert rights(one(CLASSIC, "ClusterRole", "intel-gpu-dra-classic-node-plugin")) == {
        *(("nodes", verb) for verb in ("get", "list", "watch")),
        *(("resourceclaims", verb) for verb in ("get", "list")),
        *(("events", verb) for verb in ("create", "patch")),
    }
    assert rights(one(CLASSIC, "Role", "node-plugin")) == {
        *(("gpuallocationstates", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *(("leases", verb) for verb in ("create", "patch", "delete")),
    }


def test_the_controller_may_do_what_it_does_and_no_more() -> None:
    assert rights(one(CLASSIC, "ClusterRole", "intel-gpu-dra-classic-controller")) == {
        *(("resourceclaims", verb) for verb in ("get", "list", "watch", "patch")),
        ("resourceclaims/status", "patch"),
        ("podschedulingcontexts/status", "patch"),
        ("nodes", "list"),
        *((kind, verb) for kind in ("podschedulingcontexts", "resourceclasses") for verb in ("list", "watch")),
        *((kind, verb) for kind in ("gpuclassparameters", "gpuclaimparameters") for verb in ("list", "watch")),
        ("pods", "get"),
        *(("events", verb) for verb in ("create", "patch")),
    }
    assert rights(one(CLASSIC, "Role", "controller")) == {
        *(("gpuallocationstates", verb) for verb in ("get", "list", "watch", "patch")),
        *(("leases", verb) for verb in ("get", "list", "watch", "create", "patch")),
    }


def test_bindings_bind_the_accounts_that_the_pods_use() -> None:
    for doc in CLASSIC:
        if doc["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            [subject] = doc["subjects"]
            assert subject["namespace"] == NAMESPACE
            assert one(CLASSIC, doc["roleRef"]["kind"], doc["roleRef"]["name"])
    assert pod_of(CLASSIC, "Deployment")[0]["serviceAccountName"] == "controller"
    assert pod_of(read("node-plugin"), "DaemonSet")[0]["serviceAccountName"] == "node-plugin"


BETA_POLICY = "components/classic-own-node-only"


@pytest.mark.parametrize("place", ["classic/own-node-only", BETA_POLICY])
def test_the_policy_speaks_of_the_account_and_of_the_names_that_are_used(place: str) -> None:
    policy = one(read(place), "ValidatingAdmissionPolicy")["spec"]
    [condition] = policy["matchConditions"]
    assert f"system:serviceaccount:{NAMESPACE}:node-plugin" in condition["expression"]
    [own] = [variable["expression"] for variable in policy["variables"] if variable["name"] == "own"]
    assert heartbeat_name("") in own


def test_the_policy_that_finds_nodes_by_pods_looks_at_the_plugins_pods() -> None:
    reference = one(read(BETA_POLICY), "ValidatingAdmissionPolicyBinding")["spec"]["paramRef"]
    labels = one(read("node-plugin"), "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert (reference["namespace"], reference["selector"]["matchLabels"]) == (NAMESPACE, labels)
    assert reference["parameterNotFoundAction"] == "Deny"


def test_the_policy_for_1_28_uses_no_optional_values() -> None:
    expressions = [variable["expression"] for variable in one(read(BETA_POLICY), "ValidatingAdmissionPolicy")["spec"]["variables"]]
    assert not [expression for expression in expressions if ".?" in expression or "[?" in expression or "orValue" in expression]


# --- pods -------------------------------------------------------------------------------------------------------------------------------


def never(options: object) -> int:
    raise AssertionError


def test_the_controllers_flags_settings_and_port_are_known() -> None:
    _, container = pod_of(CLASSIC, "Deployment")
    environ = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]}
    options = controller_flags.parser(environ, run=never, plan=never, taint=never, cleanup=never).parse_args(container["args"])
    assert (options.pod_name, options.pod_namespace) == ("metadata.name", "metadata.namespace")
    document = yaml.safe_load((KUSTOMIZE / "controller" / "settings.yaml").read_text())
    assert controller_settings.decode_controller(document, "controller.yaml") == ControllerConfiguration()
    [port] = container["ports"]
    assert port["containerPort"] == ControllerConfiguration().probes.port
    [mount] = container["volumeMounts"]
    assert options.config == f"{mount['mountPath']}/controller.yaml"


def test_the_controller_has_no_powers() -> None:
    spec, container = pod_of(CLASSIC, "Deployment")
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_the_plugins_namespace_is_its_default_and_its_sockets_have_one_name_inside_and_outside() -> None:
    patch = one(CLASSIC, "DaemonSet")["spec"]
    [container] = patch["template"]["spec"]["containers"]
    options = node_flags.parser({"NODE_NAME": "n"}, run=never, discover=never, plan=never, reload=never, record=never).parse_args([])
    assert options.pod_namespace == NAMESPACE
    [mount], [volume] = container["volumeMounts"], patch["template"]["spec"]["volumes"]
    assert mount["mountPath"] == volume["hostPath"]["path"] == f"{options.kubelet_root}/plugins/{CLASSIC_DRIVER_NAME}"
    assert patch["updateStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_release_gets_what_it_serves(overlay: str) -> None:
    docs = render(f"overlays/{overlay}")
    served = {doc["apiVersion"] for doc in docs if doc["apiVersion"].startswith("resource.k8s.io")}
    assert served == {"resource.k8s.io/v1alpha2"}
    assert not [doc for doc in docs if doc["kind"] in ("DeviceClass", "CustomResourceDefinition")]
    policies = [doc["apiVersion"] for doc in docs if doc["kind"].startswith("ValidatingAdmissionPolicy")]
    assert policies == (["admissionregistration.k8s.io/v1"] * 2 if overlay == "kubernetes-1.30" else [])
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ResourceClass", "GpuClassParameters"}
    for doc in docs:
        if doc["kind"] not in cluster_wide and not doc["kind"].startswith("ValidatingAdmissionPolicy"):
            assert doc["metadata"]["namespace"] == NAMESPACE, doc["kind"]
    variables = {entry["name"] for entry in pod_of(docs, "DaemonSet")[1]["env"]}
    assert {"NODE_NAME", "POD_NAMESPACE"} <= variables and "POD_UID" not in variables
    images = {pod_of(docs, kind)[1]["image"] for kind in ("DaemonSet", "Deployment")}
    assert images == {f"registry.local/intel-gpu-dra:{VERSION}"}


# --- kinds ------------------------------------------------------------------------------------------------------------------------------


def faults(body: dict[str, Any]) -> list[str]:
    schema = SCHEMAS[body["kind"]]
    completed = structural.complete(schema, body)
    return [f"{cause.field} {cause.message}" for cause in structural.faults(schema, completed, "")]


def gpu(**more: Any) -> AllocatableGpu:
    usual: dict[str, Any] = {"uid": "0000:03:00.0-0x56c0", "memory": 14248, "millicores": 1000, "model": "0x56c0", "type": DeviceType.GPU}
    return AllocatableGpu(**(usual | {"parentuid": "", "maxvfs": 31, "vfindex": 0, "ecc": True} | more))


def test_the_schemas_are_structural() -> None:
    for kind, schema in SCHEMAS.items():
        assert structural.schema_faults(schema, kind) == []


def test_what_a_node_writes_of_itself_is_taken_whole() -> None:
    every = gpu(name="Flex 170", profile="flex170_m4", tiles=2, quotas="prelim", bulk_quota=True)
    owner = OwnerReference(api_version="v1", kind="Node", name="n", uid="u")
    body = state_patch.create("n", NAMESPACE, owner, {DeviceUid(every.uid): every}, "Ready")
    body["spec"]["taintedDevices"] = {every.uid: {"reasons": {"hot": True}}, "other": {"reason": "hot"}}
    body["spec"]["allocatedClaims"] = {"claim": {"gpus": [msgspec.to_builtins(AllocatedGpu(type="vf"))]}}
    body["spec"]["preparedClaims"] = {"claim": [msgspec.to_builtins(AllocatedGpu(type="vf"))]}
    assert faults(body) == []
    schema = SCHEMAS["GpuAllocationState"]
    assert structural.complete(schema, body)["spec"] == body["spec"], "nothing is unknown to the schema"
    msgspec.convert(body, GpuAllocationState)


def test_the_schema_demands_what_has_no_default() -> None:
    devices = SCHEMAS["GpuAllocationState"]["properties"]["spec"]["properties"]["allocatableDevices"]["additionalProperties"]
    fields = msgspec.structs.fields(AllocatableGpu)
    assert {field.encode_name for field in fields if field.required} == set(devices["required"])
    assert {field.encode_name for field in fields} == set(devices["properties"])


def claim_parameters(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": GROUP_VERSION, "kind": "GpuClaimParameters", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"count": 1},
        {"count": 640, "memory": 1048576, "millicores": 1000, "type": "vf", "shareable": True},
        {"count": 1, "memory": 8, "millicores": 1, "type": "any", "shareable": False},
    ],
)
def test_parameters_that_the_schema_takes_are_taken(spec: dict[str, Any]) -> None:
    body = claim_parameters(**spec)
    assert faults(body) == []
    completed = structural.complete(SCHEMAS["GpuClaimParameters"], body)
    made = parameters.claim_parameters(msgspec.convert(completed, GpuClaimParameters))
    assert msgspec.structs.asdict(made) == msgspec.structs.asdict(ClaimParameters()) | spec


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 0), ("count", 641), ("count", "two"), ("memory", 7), ("memory", 1048577), ("millicores", 0), ("millicores", 1001),
     ("type", "xpu"), ("type", ""), ("shareable", "yes")],
)  # fmt: skip
def test_the_schema_refuses_what_the_controller_would(field: str, value: object) -> None:
    assert faults(claim_parameters(**{field: value}))[0].startswith(f"spec.{field} ")


def test_the_classes_are_those_that_claims_name() -> None:
    found = {}
    for doc in CLASSIC:
        if doc["kind"] != "ResourceClass":
            continue
        of_class = msgspec.convert(doc, ResourceClass)
        assert of_class.driver_name == CLASSIC_DRIVER_NAME
        name = parameters.class_name(of_class.parameters_ref, "here")
        body = one(CLASSIC, "GpuClassParameters", name)
        assert faults(body) == []
        found[doc["metadata"]["name"]] = parameters.class_parameters(msgspec.convert(body, GpuClassParameters))
    assert found == {
        "intel-gpu": ClassParameters(),
        "intel-gpu-shared": ClassParameters(shared=True),
        "intel-gpu-monitor": ClassParameters(monitor=True),
    }


# --- examples ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_ask_for_what_can_be_had(path: Any) -> None:
    docs = list(yaml.safe_load_all(path.read_text()))
    named = {(doc["kind"], doc["metadata"]["name"]) for doc in docs}
    for doc in docs:
        match doc["kind"]:
            case "GpuClaimParameters":
                assert faults(doc) == []
            case "ResourceClaimTemplate" | "ResourceClaim":
                spec = doc["spec"]["spec"] if doc["kind"] == "ResourceClaimTemplate" else doc["spec"]
                demanded(docs, msgspec.convert({"metadata": {"name": "c"}, "spec": spec}, ResourceClaim))
            case "Pod":
                for claim in doc["spec"]["resourceClaims"]:
                    [(field, name)] = claim["source"].items()
                    assert ("ResourceClaim" if field == "resourceClaimName" else "ResourceClaimTemplate", name) in named


def demanded(docs: list[dict[str, Any]], claim: ResourceClaim) -> None:
    """
    Raises:
        ClaimRefused: nobody could allocate it.
    """
    of_class = msgspec.convert(one(CLASSIC, "ResourceClass", claim.spec.resource_class_name), ResourceClass)
    body = one(CLASSIC, "GpuClassParameters", parameters.class_name(of_class.parameters_ref, "here"))
    of_claim = ClaimParameters()
    if (name := parameters.claim_name(claim.spec.parameters_ref, "here")) is not None:
        of_claim = parameters.claim_parameters(msgspec.convert(one(docs, "GpuClaimParameters", name), GpuClaimParameters))
    parameters.demand(parameters.class_parameters(msgspec.convert(body, GpuClassParameters)), of_claim, "here")
