"""What `doctor` says of an installation: rollouts, the leader, policies, the webhook."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.explaining import installation
from dra.explaining.checks import Finding, Verdict, worst
from dra.explaining.cluster import Cluster
from dra.explaining.installation import Installation
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import own_pod

Json = dict[str, Any]
NS = "intel-gpu-dra"


def daemon_set(name: str = "node-plugin", **status: int) -> Json:
    labels = {"app.kubernetes.io/component": "node-plugin"}
    whole = {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3, "observedGeneration": 2}
    return {"metadata": {"name": name, "namespace": NS, "labels": labels, "generation": 2}, "status": {**whole, **status}}


def lease(holder: str = "controller-1", renewed: str = "2026-11-26T11:59:50.000000Z") -> Json:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 12}
    return {"metadata": {"name": "gpu-controller", "namespace": NS}, "spec": spec}


def policy(name: str, namespace: str = NS) -> Json:
    expression = f'request.userInfo.username == "system:serviceaccount:{namespace}:node-plugin"'
    return {"metadata": {"name": name}, "spec": {"matchConditions": [{"name": "by-the-node-plugin", "expression": expression}]}}


def binding(name: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"policyName": name}}


def webhook(ca: str = "Q0E=", policy: str = "Ignore") -> Json:
    config = {"caBundle": ca, "service": {"namespace": NS, "name": "controller-webhook"}}
    hooks = [{"name": "claims.gpu.intel.com", "clientConfig": config, "failurePolicy": policy}]
    return {"metadata": {"name": "intel-gpu-dra-controller"}, "webhooks": hooks}


def endpoints(ready: bool = True) -> Json:
    labels = {"kubernetes.io/service-name": "controller-webhook"}
    return {"metadata": {"name": "e", "namespace": NS, "labels": labels}, "endpoints": [{"conditions": {"ready": ready}}]}


POLICIES = tuple(map(policy, installation.POLICIES))
BINDINGS = tuple(map(binding, installation.POLICIES))
WELL = Installation(
    daemon_sets=(daemon_set(),), leases=(lease(),), policies=POLICIES, bindings=BINDINGS, webhooks=(webhook(),), endpoints=(endpoints(),)
)


def cluster(**more: Any) -> Cluster:
    pods = [own_pod(), own_pod(component="controller")]
    for pod in pods:
        pod["spec"]["serviceAccountName"] = "node-plugin"
    return msgspec.structs.replace(world.cluster(pods=pods), **more)


def asked(where: Cluster | None = None, **changed: Any) -> list[Finding]:
    return list(installation.findings(where or cluster(), msgspec.structs.replace(WELL, **changed)))


def found(check: str, where: Cluster | None = None, **changed: Any) -> Finding:
    [finding] = [each for each in asked(where, **changed) if each.check == check]
    return finding


def test_nothing_is_wrong_with_an_installation_that_is_whole() -> None:
    assert worst(asked()) is Verdict.OK
    assert {each.check for each in asked()} == {"rollout", "leader", "admission policies", "webhook"}


@pytest.mark.parametrize("status", [{"updatedNumberScheduled": 1}, {"numberAvailable": 2}, {"observedGeneration": 1}])
def test_a_rollout_that_is_not_done(status: dict[str, int]) -> None:
    told = found("rollout", daemon_sets=(daemon_set(**status),))
    assert told.verdict is Verdict.WARNING
    assert told.cure == "kubectl -n intel-gpu-dra rollout status daemonset/node-plugin"


def test_controllers_that_are_not_all_there() -> None:
    deployment = {"metadata": {"name": "controller", "namespace": NS}, "spec": {"replicas": 2}, "status": {"updatedReplicas": 2}}
    told = found("rollout", daemon_sets=(), deployments=(deployment,))
    assert told.seen == "deployment intel-gpu-dra/controller: of 2 pods 2 are of the newest kind and 0 are available"


def test_two_installations() -> None:
    told = found("one installation", daemon_sets=(daemon_set(), daemon_set("other")))
    assert told.verdict is Verdict.PROBLEM and "intel-gpu-dra/node-plugin, intel-gpu-dra/other" in told.seen


@pytest.mark.parametrize(
    ("leases", "said"),
    [((), "no controller leads"), ((lease(""),), "no controller leads"), ((lease(renewed="2026-11-26T11:58:00Z"),), "has not renewed")],
)
def test_controllers_without_a_leader(leases: tuple[Json, ...], said: str) -> None:
    told = found("leader", leases=leases)
    assert told.verdict is Verdict.WARNING and said in told.seen
    classic = cluster(api="v1alpha2", version="v1.30.1")
    assert found("leader", classic, leases=leases).verdict is Verdict.PROBLEM, "nobody allocates"


def test_policies_that_are_missing_unbound_or_of_another_installation() -> None:
    assert "own-claims-only is missing" in found("admission policies", policies=POLICIES[:1]).seen
    assert "own-node-only has no binding" in found("admission policies", bindings=BINDINGS[1:]).seen
    elsewhere = (policy(installation.POLICIES[0], "default"), POLICIES[1])
    assert "own-node-only is not for system:serviceaccount:intel-gpu-dra" in found("admission policies", policies=elsewhere).seen
    old = cluster(api="v1alpha2", version="v1.29.6")
    assert [each for each in asked(old, policies=()) if each.check == "admission policies"] == [], "off by default up to 1.29"


def test_a_webhook_that_cannot_be_called() -> None:
    told = found("webhook", webhooks=(webhook(ca=""),))
    assert told.verdict is Verdict.WARNING and "caBundle is empty" in told.seen
    for unserved in ((), (endpoints(ready=False),)):
        assert "has no endpoint that is ready" in found("webhook", endpoints=unserved).seen
    told = found("webhook", webhooks=(webhook(policy="Fail"),), endpoints=())
    assert told.verdict is Verdict.PROBLEM and "every claim is refused" in told.seen


def test_what_could_not_be_read_is_said_and_not_judged() -> None:
    unread = dict.fromkeys(("leases", "validatingadmissionpolicies", "endpointslices"), "not allowed")
    told = asked(leases=(), policies=(), endpoints=(), unread=unread)
    assert {each.check for each in told if each.verdict is not Verdict.OK} == {"rights"}
    assert worst(told) is Verdict.UNKNOWN
