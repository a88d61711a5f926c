"""The controller's components for structured DRA say what it needs there: rights, settings, ports, paths."""

from __future__ import annotations

import pathlib
import posixpath
from typing import Any

import pytest
import trio
import yaml
from trio.testing import MockClock

from dra import admission, alerts, controller_settings, taint_rules
from dra.controller_settings import ControllerConfiguration, Webhook
from dra.kube.events import Regarding, Weight
from dra.names import DeviceName, NodeName
from dra.pool import Effect
from nursery_apps.announcer import APART_SECONDS, Announcer
from nursery_apps.controller import parts
from nursery_apps.controller.leadership import Fence, Leadership
from nursery_apps.controller.slice_watch import SliceWatch
from nursery_apps.controller.taint_command import taint
from nursery_apps.controller.tainter import Tainter
from nursery_apps.seams import ServedApi
from tests.fakes.gpu_states import CARD, VF, slice_of
from tests.fakes.kube_api import ALL_PLURALS, FakeKubeApi
from tests.manifests.rendered import KUSTOMIZE, one, read, render, render_overlay, rights

SHARED = read("controller")
ACCESS = read("components/controller/structured")
ALERTS = read("components/alert-receiver")
WEBHOOK = read("components/webhook")
NAMESPACE = one(read("base"), "Namespace")["metadata"]["name"]
POD = one(SHARED, "Deployment")["spec"]["template"]


def settings_of(docs: list[dict[str, Any]]) -> ControllerConfiguration:
    [(name, text)] = one(docs, "ConfigMap", "controller-settings")["data"].items()
    return controller_settings.decode_controller(yaml.safe_load(text), name)


# --- rights -----------------------------------------------------------------------------------------------------------------------------


def test_the_controller_may_do_in_the_cluster_and_in_its_namespace() -> None:
    assert rights(one(ACCESS, "ClusterRole")) == {
        *((kind, verb) for kind in ("resourceslices", "resourceclaims") for verb in ("list", "watch")),
        *(("nodes", verb) for verb in ("get", "list", "watch")),
        *(("events", verb) for verb in ("create", "patch")),
        *(("devicetaintrules", verb) for verb in ("get", "list", "create", "patch", "delete")),
    }
    assert rights(one(ACCESS, "Role")) == {
        *(("pods", verb) for verb in ("list", "watch")),
        *(("leases", verb) for verb in ("get", "create", "patch")),
        *(("gpuallocationstates", verb) for verb in ("get", "create", "patch")),
    }


async def test_it_asks_for_all_of_that_and_for_nothing_else(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.offer = ServedApi("v1.36.3", (("v1", (*ALL_PLURALS, "devicetaintrules")),))  # both ways to taint are used there
    api.put("nodes", {"metadata": {"name": "n1"}})
    api.put("resourceslices", slice_of("n1", CARD, VF))
    # Somebody's under the name of ours.
    foreign = taint_rules.rule_name("n1", DeviceName(VF))
    api.put("devicetaintrules", {"metadata": {"name": foreign}, "spec": {"taint": {"key": "other"}}})

    def ignore(*_: object) -> None:
        pass

    async def work(_: Fence) -> None:
        watch = SliceWatch(api, version="v1", namespace=NAMESPACE, announce=ignore, on_counts=ignore, random=lambda: 0.5)
        await watch.run()

    announcer = Announcer(api, component=parts.COMPONENT, node=NodeName("c1"), clock=lambda: 0.0)
    leadership = Leadership(api, namespace=NAMESPACE, name=parts.LEASE, identity="c1", clock=lambda: 0.0)
    tainter = Tainter(api, namespace=NAMESPACE, effect=lambda: Effect.NO_SCHEDULE, random=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leadership.lead, work)
        await nursery.start(announcer.run)
        for _ in range(2):
            announcer.announce(Regarding(kind="Node", name="n1"), Weight.WARNING, "SlicesMissing", "none")
            await trio.sleep(2 * APART_SECONDS)
        await taint(tainter, "n1", reason="hot")
        await taint(tainter, "n1", reason="hotter")
        await taint(tainter, "n1", clear=True)
        nursery.cancel_scope.cancel()
    asked = {(plural, verb) for verb, plural, _ in api.calls if plural}
    assert asked == rights(one(ACCESS, "ClusterRole")) | rights(one(ACCESS, "Role"))


def test_rights_are_of_the_groups_that_serve_the_kinds() -> None:
    groups = {kind: group for role in ("ClusterRole", "Role") for rule in one(ACCESS, role)["rules"] for kind in rule["resources"]
              for group in rule["apiGroups"]}  # fmt: skip
    assert groups == {
        **dict.fromkeys(("resourceslices", "resourceclaims", "devicetaintrules"), "resource.k8s.io"),
        **dict.fromkeys(("nodes", "pods", "events"), ""),
        "leases": "coordination.k8s.io",
        "gpuallocationstates": "gpu.resource.intel.com",
    }


def test_bindings_bind_the_account_that_the_pods_use() -> None:
    account = one(SHARED, "ServiceAccount")["metadata"]["name"]
    assert POD["spec"]["serviceAccountName"] == account
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        binding = one(ACCESS, kind)
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
        assert one(ACCESS, binding["roleRef"]["kind"], binding["roleRef"]["name"])


# --- settings ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "ports"),
    [((), (0, 0)), (("alert-receiver",), (9178, 0)), (("webhook",), (0, 9443)), (("webhook", "alert-receiver"), (9178, 9443))],
)
@pytest.mark.parametrize("resources", ["base", "overlays/kubernetes-1.31"])
def test_each_component_sets_its_port_and_no_other(
    tmp_path: pathlib.Path, resources: str, components: tuple[str, ...], ports: tuple[int, int]
) -> None:
    docs = render_overlay(tmp_path, resources, "controller", *components)
    found = settings_of(docs)
    assert (found.alerts.port, found.webhook.port) == ports
    [container] = one(docs, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {port["containerPort"] for port in container["ports"]} == {found.probes.port, *ports} - {0}


@pytest.mark.parametrize("component", ["alert-receiver", "webhook"])
def test_the_line_a_component_replaces_is_its_own(component: str) -> None:
    """What kustomize does, for where there is no kubectl."""
    docs = read(f"components/{component}")
    [[replacement]] = [doc["replacements"] for doc in docs if doc["kind"] == "Component"]
    [target] = replacement["targets"]
    lines = (KUSTOMIZE / "controller" / "settings.yaml").read_text().split(target["options"]["delimiter"])
    wanted = yaml.safe_load(one(docs, "ConfigMap", replacement["source"]["name"])["data"]["line"])
    assert yaml.safe_load(lines[target["options"]["index"]]).keys() == wanted.keys()


def test_what_is_for_kustomize_alone_is_not_installed() -> None:
    docs = render("overlays/controller")
    assert {doc["metadata"]["name"] for doc in docs if doc["kind"] == "ConfigMap"} == {"controller-settings", "node-plugin-settings"}


def test_everything_is_in_the_drivers_namespace_with_the_drivers_image() -> None:
    docs = render("overlays/controller")
    for doc in docs:
        if doc["kind"] in ("Deployment", "PodDisruptionBudget", "ConfigMap", "Service", "ServiceAccount", "Role", "RoleBinding"):
            assert doc["metadata"]["namespace"] == NAMESPACE, doc["kind"]
    [container] = one(docs, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.local/intel-gpu-dra:")
    assert one(docs, "PodDisruptionBudget")["spec"]["selector"] == one(docs, "Deployment")["spec"]["selector"]


# --- services ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("docs", "port"), [(ALERTS, 9178), (WEBHOOK, 9443)], ids=["alerts", "webhook"])
def test_services_reach_the_controllers(docs: list[dict[str, Any]], port: int) -> None:
    service = one(docs, "Service")
    assert service["metadata"]["namespace"] == NAMESPACE
    assert service["spec"]["selector"] == POD["metadata"]["labels"]
    [served] = service["spec"]["ports"]
    [container] = one(docs, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["name"] == POD["spec"]["containers"][0]["name"]
    assert container["ports"] == [{"name": served["targetPort"], "containerPort": port}]


def test_the_comment_for_alertmanager_names_the_path() -> None:
    service = one(ALERTS, "Service")
    [port] = service["spec"]["ports"]
    url = f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{port['port']}{alerts.PATH}"
    assert url in (KUSTOMIZE / "components/alert-receiver/service.yaml").read_text()


def test_the_webhook_is_asked_what_it_judges_and_held_against_nobody() -> None:
    [webhook] = one(WEBHOOK, "ValidatingWebhookConfiguration")["webhooks"]
    service = webhook["clientConfig"]["service"]
    assert service == {"name": one(WEBHOOK, "Service")["metadata"]["name"], "namespace": NAMESPACE, "path": admission.PATH}
    assert one(WEBHOOK, "Service")["spec"]["ports"][0]["port"] == 443  # where an API server goes unless told otherwise
    [rule] = webhook["rules"]
    assert (rule["apiGroups"], set(rule["resources"])) == ([admission.GROUP], {admission.CLAIM, admission.TEMPLATE})
    assert (rule["apiVersions"], rule["operations"]) == (["*"], ["CREATE", "UPDATE"])
    assert [f"admission.k8s.io/{version}" for version in webhook["admissionReviewVersions"]] == [admission.API_VERSION]
    assert {name: webhook[name] for name in ("failurePolicy", "matchPolicy", "sideEffects", "timeoutSeconds")} == {
        "failurePolicy": "Ignore", "matchPolicy": "Equivalent", "sideEffects": "None", "timeoutSeconds": 5,
    }  # fmt: skip


def test_the_certificate_is_where_the_settings_look() -> None:
    spec = one(WEBHOOK, "Deployment")["spec"]["template"]["spec"]
    [mount], [volume] = spec["containers"][0]["volumeMounts"], spec["volumes"]
    assert {mount["mountPath"]} == {posixpath.dirname(path) for path in (Webhook().certificate, Webhook().key)}
    assert volume["name"] == mount["name"]
    assert volume["secret"] == {"secretName": "controller-tls", "optional": True}
