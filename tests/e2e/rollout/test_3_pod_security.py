"""Who the pods have to be: said by the API server's own judge of it."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.e2e.api import Doc
from tests.e2e.rollout.release import AnyDriver, Release, chart
from tests.manifests.rendered import one


@pytest.fixture
def docs(release: Release) -> list[Doc]:
    """What the chart would bring, with the controller and the hook, which `helm template` leaves out."""
    return chart(release, controller={"enabled": True}, cleanup={"enabled": True})


@contextlib.contextmanager
def profile(driver: AnyDriver, level: str) -> Iterator[str]:
    """A namespace that enforces it; its name."""
    name = f"enforces-{level}"
    driver.kubectl("create", "namespace", name)
    try:
        driver.kubectl("label", "namespace", name, f"pod-security.kubernetes.io/enforce={level}")
        yield name
    finally:
        driver.kubectl("delete", "namespace", name)


def refusal(driver: AnyDriver, level: str, template: Doc) -> str:
    """What the API server says to a pod of this template, empty if it takes it."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": copy.deepcopy(template["spec"])}
    for name in ("serviceAccountName", "priorityClassName"):
        pod["spec"].pop(name, None)
    with profile(driver, level) as namespace:
        try:
            driver.api.create(pod, namespace)
        except DynamicApiError as error:
            return str(json.loads(error.body or "{}")["message"])
    return ""


def test_the_controller_is_as_restricted_as_can_be(bare: AnyDriver, docs: list[Doc]) -> None:
    assert refusal(bare, "restricted", one(docs, "Deployment")["spec"]["template"]) == ""


def test_so_is_what_cleans_up(bare: AnyDriver, docs: list[Doc]) -> None:
    assert refusal(bare, "restricted", one(docs, "Job")["spec"]["template"]) == ""


def test_the_unprivileged_plugin_needs_directories_of_the_host_and_nothing_else(release: Release, bare: AnyDriver) -> None:
    docs = chart(release, nodePlugin={"privileged": False, "settings": {"sriov": {"mode": "off"}}}, simulate={"enabled": False})
    said = refusal(bare, "baseline", one(docs, "DaemonSet")["spec"]["template"])
    assert 'violates PodSecurity "baseline' in said
    assert said.partition('latest": ')[2].startswith("hostPath volumes (") and "), " not in said.partition("hostPath volumes (")[2]


def test_the_privileged_one_is_that_too(release: Release, bare: AnyDriver) -> None:
    said = refusal(bare, "baseline", one(chart(release, simulate={"enabled": False}), "DaemonSet")["spec"]["template"])
    assert "hostPath volumes" in said and "privileged (container" in said
    for other in ("host namespaces", "hostPort", "capabilities", "seccompProfile", "seLinuxOptions"):
        assert other not in said
