"""Installing controller and node plugin on a release with classic DRA."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError, ForbiddenError, UnprocessibleEntityError

from dra.classic.names import HEARTBEAT_LABEL, heartbeat_name
from tests.e2e.api import Api, Doc
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import GROUP_VERSION, ClassicNamespace
from tests.e2e.driver import total

OURS = "gpu.resource.intel.com"
READ = ("list", "watch")
ALLOWED: dict[str, dict[tuple[str, str], set[str]]] = {
    "node-plugin": {
        ("", "nodes"): {"get", *READ},
        ("", "events"): {"create", "patch"},
        ("resource.k8s.io", "resourceclaims"): {"get", "list"},
        (OURS, "gpuallocationstates"): {"get", *READ, "create", "patch", "delete"},
        ("coordination.k8s.io", "leases"): {"create", "patch", "delete"},  # its own, when the driver is to be removed
    },
    "controller": {
        ("", "pods"): {"get"},
        ("", "nodes"): {"list"},
        ("", "events"): {"create", "patch"},
        ("resource.k8s.io", "resourceclaims"): {"get", *READ, "patch"},
        ("resource.k8s.io", "resourceclaims/status"): {"patch"},
        ("resource.k8s.io", "resourceclasses"): {*READ},
        ("resource.k8s.io", "podschedulingcontexts"): {*READ},
        ("resource.k8s.io", "podschedulingcontexts/status"): {"patch"},
        (OURS, "gpuclassparameters"): {*READ},
        (OURS, "gpuclaimparameters"): {*READ},
        (OURS, "gpuallocationstates"): {"get", *READ, "patch"},
        ("coordination.k8s.io", "leases"): {"get", *READ, "create", "patch"},
    },
}
"""In the driver's namespace."""
ASKED = (
    *sorted({what for table in ALLOWED.values() for what in table}),
    ("", "nodes/status"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "serviceaccounts/token"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("apps", "daemonsets"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
)
EVERY = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
NAMESPACED = ((OURS, "gpuallocationstates"), ("coordination.k8s.io", "leases"))
"""Of these nothing is allowed elsewhere."""


def test_the_nodes_state_is_what_discover_prints(driver: ClassicDriver) -> None:
    assert driver.state()["metadata"]["ownerReferences"][0]["name"] == driver.node
    publishable = {gpu["bdf"] for gpu in driver.discovered() if gpu["publishable"]}
    assert {uid.rpartition("-")[0] for uid in driver.inventory()} == publishable
    assert driver.leads("nodes", ready="true") == 1


def test_the_plugin_says_that_it_lives(driver: ClassicDriver) -> None:
    lease = driver.api.get("Lease", heartbeat_name(driver.node), driver.namespace)
    assert lease is not None
    assert lease["metadata"]["labels"][HEARTBEAT_LABEL] == "true"

    def renewed(leases: dict[str, Doc]) -> bool:
        return bool(leases[heartbeat_name(driver.node)]["spec"]["renewTime"] != lease["spec"]["renewTime"])

    driver.api.wait("Lease", renewed, namespace=driver.namespace, what="the Lease renewed", seconds=40)


def test_one_of_two_controllers_leads(driver: ClassicDriver) -> None:
    assert sorted(total(driver.controller_metrics(pod), "intel_gpu_dra_leading") for pod in driver.controllers()) == [0, 1]


def test_kubectl_shows_what_matters(driver: ClassicDriver) -> None:
    [head, line] = driver.kubectl("-n", driver.namespace, "get", "gas").splitlines()
    assert head.split() == ["NAME", "STATUS", "AGE"]
    assert line.split()[:2] == [driver.node, "Ready"]


# --- kinds ------------------------------------------------------------------------------------------------------------------------------


def original_gpu() -> Doc:
    """As v0.3.0 wrote it."""
    more: Doc = {"type": "gpu", "parentuid": "", "maxvfs": 31, "vfindex": 0, "ecc": True}
    return {"uid": "0000:03:00.0-0x56c0", "memory": 14248, "millicores": 1000, "model": "0x56c0", **more}


def original_state() -> Doc:
    held: Doc = {"uid": "", "memory": 3528, "millicores": 250, "type": "vf", "parentuid": "0000:03:00.0-0x56c0", "vfindex": 0}
    spec = {
        "allocatableDevices": {original_gpu()["uid"]: original_gpu()},
        "taintedDevices": {original_gpu()["uid"]: {"reason": "FanIsDead"}},
        "allocatedClaims": {"9b2e8a5c": {"gpus": [held | {"profile": "flex170_m4"}]}},
        "preparedClaims": {"9b2e8a5c": [held | {"profile": "flex170_m4"}]},
    }
    return {"apiVersion": GROUP_VERSION, "kind": "GpuAllocationState", "metadata": {"name": "old"}, "spec": spec, "status": "Ready"}


def test_objects_of_the_original_are_taken_as_they_are(ns: ClassicNamespace) -> None:
    made = ns.api.create(original_state(), ns.name)
    assert (made["spec"], made["status"]) == (original_state()["spec"], "Ready")
    ns.parameters("old", count=2, type="any", memory=8, millicores=1, shareable=True)
    ns.parameters("short", count=1)
    stored = ns.api.get("GpuClaimParameters", "short", ns.name)
    assert stored is not None and stored["spec"] == {"count": 1, "type": "gpu"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 0), ("count", 641), ("memory", 7), ("memory", 1048577), ("millicores", 0), ("millicores", 1001), ("type", "xpu"),
     ("shareable", "yes")],
)  # fmt: skip
def test_parameters_out_of_range_are_refused_with_the_field(ns: ClassicNamespace, field: str, value: Any) -> None:
    with pytest.raises(UnprocessibleEntityError, match=rf"spec\.{field}"):
        ns.parameters("wrong", **{"count": 1, field: value})


def test_devices_without_what_the_original_demanded_are_refused(ns: ClassicNamespace) -> None:
    state = original_state()
    del state["spec"]["allocatableDevices"][original_gpu()["uid"]]["model"]
    with pytest.raises(UnprocessibleEntityError, match="model: Required value"):
        ns.api.create(state, ns.name)


# --- access -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ALLOWED)
@pytest.mark.parametrize(("group", "resource"), ASKED, ids=[resource for _, resource in ASKED])
def test_each_account_may_do_what_it_needs_and_no_more(driver: ClassicDriver, account: str, group: str, resource: str) -> None:
    allowed = ALLOWED[account].get((group, resource), set())
    assert may(driver, account, group, resource, driver.namespace) == allowed
    if (group, resource) in NAMESPACED:
        assert may(driver, account, group, resource, "default") == set()


def may(driver: ClassicDriver, account: str, group: str, resource: str, namespace: str) -> set[str]:
    name, _, subresource = resource.partition("/")
    found = set()
    for verb in EVERY:
        asked = {"group": group, "resource": name, "subresource": subresource, "verb": verb, "namespace": namespace}
        user = f"system:serviceaccount:{driver.namespace}:{account}"
        spec = {"user": user, "groups": ["system:serviceaccounts", "system:authenticated"], "resourceAttributes": asked}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        if driver.api.create(review)["status"]["allowed"]:
            found.add(verb)
    return found


def test_nobody_was_refused_anything(driver: ClassicDriver) -> None:
    for text in (driver.log(), *map(driver.controller_log, driver.controllers())):
        assert "forbidden" not in text.lower()


@pytest.fixture
def plugin_api(driver: ClassicDriver) -> Api:
    """The API server as the plugin on this node is let in: with a token of its pod."""
    if driver.api.version < (1, 30):
        pytest.skip(
            "before Kubernetes 1.30 admission policies are off by default: components/classic-own-node-only is for clusters that have them"
        )
    return driver.api.bearing(driver.api.token("node-plugin", driver.namespace, pod=driver.pods()[0]))


def test_a_plugin_cannot_touch_another_nodes_state_and_lease(driver: ClassicDriver, plugin_api: Api) -> None:
    plugin_api.patch("GpuAllocationState", driver.node, {"metadata": {"labels": {"mine": "yes"}}}, driver.namespace)
    state: Doc = {"apiVersion": GROUP_VERSION, "kind": "GpuAllocationState", "metadata": {"name": "node2"}, "status": "Ready"}
    lease: Doc = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": heartbeat_name("node2")}}
    for body in (state, lease):
        refused(lambda body=body: plugin_api.create(body, driver.namespace))
        driver.api.create(body, driver.namespace)
        kind, name = body["kind"], body["metadata"]["name"]
        try:
            refused(lambda kind=kind, name=name: plugin_api.patch(kind, name, {"metadata": {"labels": {"mine": "now"}}}, driver.namespace))
        finally:
            driver.api.delete(kind, name, driver.namespace)
    refused(lambda: plugin_api.patch("Lease", "gpu-controller", {"spec": {"holderIdentity": "me"}}, driver.namespace))


def refused(call: Any) -> None:
    with pytest.raises((UnprocessibleEntityError, ForbiddenError, DynamicApiError, ApiException), match="may not touch"):
        call()
