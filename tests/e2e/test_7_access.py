"""What the driver's service account may do, as the API server says, and that a node's plugin keeps to its own node."""

from __future__ import annotations

import pytest
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from dra.names import DRIVER_NAME
from tests.e2e.api import Api, Doc
from tests.e2e.driver import ACCOUNT, DAEMON_SET, NAMESPACE, Driver

READ = ("get", "list", "watch")
WRITE = ("create", "update", "delete")
EVERY = (*READ, "create", "update", "patch", "delete", "deletecollection")
ALLOWED = {
    ("", "nodes"): {*READ},
    ("", "events"): {"create", "patch"},
    ("resource.k8s.io", "resourceslices"): {*READ, *WRITE},
    ("resource.k8s.io", "resourceclaims"): {"get", "list"},
    ("resource.k8s.io", "resourceclaims/status"): {"patch"},
}
ASKED = (
    *ALLOWED,
    ("", "nodes/status"),
    ("", "pods"),
    ("", "pods/exec"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "serviceaccounts/token"),
    ("resource.k8s.io", "resourceclaims/binding"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("apps", "daemonsets"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
)


@pytest.mark.parametrize(("group", "resource"), ASKED, ids=[resource for _, resource in ASKED])
def test_the_service_account_may_do_what_it_needs_and_no_more(driver: Driver, group: str, resource: str) -> None:
    may = {verb for verb in EVERY if is_allowed(driver, verb, group, resource)}
    assert may == ALLOWED.get((group, resource), set())


def is_allowed(driver: Driver, verb: str, group: str, resource: str, name: str = "") -> bool:
    kind, _, subresource = resource.partition("/")
    asked = {"group": group, "resource": kind, "subresource": subresource, "verb": verb} | ({"name": name} if name else {})
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    spec = {"user": ACCOUNT, "groups": ["system:serviceaccounts", "system:authenticated"], "resourceAttributes": asked}
    return bool(driver.api.create({**review, "spec": spec})["status"]["allowed"])


def test_the_service_account_speaks_of_its_own_drivers_devices_on_its_own_node(driver: Driver) -> None:
    """What API servers from 1.36 on ask before they let somebody change `status.devices`; the rights are there on every release."""
    verbs = [f"{whose}-node:{verb}" for whose in ("associated", "arbitrary") for verb in ("update", "patch")]
    for name, allowed in ((DRIVER_NAME, ["associated-node:patch"]), ("other.example.com", []), ("", [])):
        assert [verb for verb in verbs if is_allowed(driver, verb, "resource.k8s.io", "resourceclaims/driver", name)] == allowed


@pytest.fixture
def plugin_api(driver: Driver) -> Api:
    """The API server as the plugin on this node is let in: with a token of its pod."""
    return driver.api.bearing(driver.api.token(DAEMON_SET, NAMESPACE, pod=driver.pods()[0]))


def slice_of(api: Api, node: str) -> Doc:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "other.example.com", "nodeName": node, "pool": pool, "devices": []}
    return {"apiVersion": f"resource.k8s.io/{api.dra}", "kind": "ResourceSlice", "metadata": {"name": f"story-{node}"}, "spec": spec}


def test_a_plugin_writes_slices_of_its_own_node(driver: Driver, plugin_api: Api) -> None:
    made = plugin_api.create(slice_of(plugin_api, driver.node))["metadata"]["name"]
    plugin_api.delete("ResourceSlice", made)
    assert plugin_api.get("ResourceSlice", made) is None


def test_a_plugin_cannot_touch_another_nodes_slices(driver: Driver, plugin_api: Api) -> None:
    with pytest.raises(UnprocessibleEntityError, match=r"is forbidden: .* may not touch a slice of node node2"):
        plugin_api.create(slice_of(plugin_api, "node2"))
    driver.api.create(slice_of(driver.api, "node2"))
    try:
        with pytest.raises(UnprocessibleEntityError, match=r"is forbidden: .* may not touch a slice of node node2"):
            plugin_api.label("ResourceSlice", "story-node2", {"mine": "now"})
        with pytest.raises(UnprocessibleEntityError, match=r"is forbidden: .* may not touch a slice of node node2"):
            plugin_api.delete("ResourceSlice", "story-node2")
    finally:
        driver.api.delete("ResourceSlice", "story-node2")


def test_a_token_that_names_no_node_writes_no_slice(driver: Driver) -> None:
    nobody = driver.api.bearing(driver.api.token(DAEMON_SET, NAMESPACE))
    with pytest.raises(UnprocessibleEntityError, match=r"is forbidden: .* token names no node"):
        nobody.create(slice_of(nobody, driver.node))
