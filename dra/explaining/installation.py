"""What the driver's installation consists of beside its pods, and whether it is whole: rollouts, the leader, policies, the webhook."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from dra.explaining.checks import COMPONENT, Finding, Verdict, pods_of
from dra.explaining.cluster import Cluster, Json, key_of, named

LEASE: Final = "gpu-controller"
"""By which controllers choose their leader."""
WEBHOOK: Final = "claims.gpu.intel.com"
POLICIES: Final = ("intel-gpu-dra-own-node-only", "intel-gpu-dra-own-claims-only")
CLASSIC_POLICIES: Final = ("intel-gpu-dra-classic-own-node-only",)
POLICIES_SINCE: Final = 30
"""Minor from which admission policies are on by default."""
SLACK_SECONDS: Final = 60
"""By which a Lease may be over: clocks differ, this one's among them."""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """JSON as the API server sent it; what could not be read is in `unread`."""

    daemon_sets: tuple[Json, ...] = ()
    """The driver's own, by their label, as are the next."""
    deployments: tuple[Json, ...] = ()
    leases: tuple[Json, ...] = ()
    """In the driver's namespaces."""
    policies: tuple[Json, ...] = ()
    """ValidatingAdmissionPolicies; of bindings the same."""
    bindings: tuple[Json, ...] = ()
    webhooks: tuple[Json, ...] = ()
    """ValidatingWebhookConfigurations."""
    endpoints: tuple[Json, ...] = ()
    """EndpointSlices in the driver's namespaces."""
    gates: Mapping[str, bool] | None = None
    """Feature gates by the API server's metrics; None if they could not be read."""
    unread: Mapping[str, str] = {}
    """Plural -> why."""


def findings(cluster: Cluster, installed: Installation) -> Iterator[Finding]:
    yield from _rollouts(installed)
    yield from _leader(cluster, installed)
    yield from _policies(cluster, installed)
    yield from _webhook(installed)
    for plural, why in sorted(installed.unread.items()):
        yield Finding(Verdict.UNKNOWN, "rights", "", f"{plural} could not be read: {why}", "docs/kubectl-plugin.md has a ClusterRole")


def _component(body: Json) -> str:
    return str((body["metadata"].get("labels") or {}).get(COMPONENT, ""))


def _rollouts(installed: Installation) -> Iterator[Finding]:
    plugins = [body for body in installed.daemon_sets if _component(body) == "node-plugin"]
    if len(plugins) > 1:
        seen = f"{', '.join(map(key_of, plugins))}: a kubelet takes the driver's name from one only"
        yield Finding(Verdict.PROBLEM, "one installation", "", seen, "remove all but one: docs/uninstalling.md")
    for kind, bodies in (("daemonset", installed.daemon_sets), ("deployment", installed.deployments)):
        for body in bodies:
            yield _rollout(kind, body)


def _rollout(kind: str, body: Json) -> Finding:
    status, metadata = body.get("status") or {}, body["metadata"]
    of_nodes = kind == "daemonset"
    wanted = status.get("desiredNumberScheduled", 0) if of_nodes else (body.get("spec") or {}).get("replicas", 1)
    updated = status.get("updatedNumberScheduled" if of_nodes else "updatedReplicas", 0)
    available = status.get("numberAvailable" if of_nodes else "availableReplicas", 0)
    check, name = "rollout", f"{kind} {key_of(body)}"
    if status.get("observedGeneration", 0) >= metadata.get("generation", 0) and updated == available == wanted:
        return Finding(Verdict.OK, check, "", f"{name}: {available} of {wanted}")
    seen = f"{name}: of {wanted} pods {updated} are of the newest kind and {available} are available"
    cure = f"kubectl -n {metadata.get('namespace', '')} rollout status {kind}/{metadata['name']}"
    return Finding(Verdict.WARNING, check, "", seen, cure)


def _leader(cluster: Cluster, installed: Installation) -> Iterator[Finding]:
    """Where there are controllers; that there are none where they are needed is another's question."""
    namespaces = sorted({pod["metadata"]["namespace"] for pod in pods_of(cluster, "controller")})
    if "leases" in installed.unread:
        return
    for namespace in namespaces:
        lease = named(installed.leases, LEASE, namespace)
        spec = (lease or {}).get("spec") or {}
        holder, check = spec.get("holderIdentity"), "leader"
        if holder and not stale(spec, cluster.at):
            yield Finding(Verdict.OK, check, "", f"{holder}, in namespace {namespace}")
            continue
        seen = f"{holder} has not renewed Lease {namespace}/{LEASE} since {spec.get('renewTime')}" if holder else "no controller leads"
        verdict = Verdict.PROBLEM if cluster.is_classic else Verdict.WARNING
        yield Finding(verdict, check, "", seen, "docs/runbooks/IntelGpuNoLeader.md")


def stale(spec: Mapping[str, Any], at: str) -> bool:
    """Whether a Lease's holder has let it run out. Without times it cannot be told: then not."""
    try:
        renewed, now = datetime.datetime.fromisoformat(spec["renewTime"]), datetime.datetime.fromisoformat(at)
    except (KeyError, TypeError, ValueError):
        return False
    return (now - renewed).total_seconds() > (spec.get("leaseDurationSeconds") or 0) + SLACK_SECONDS


def _policies(cluster: Cluster, installed: Installation) -> Iterator[Finding]:
    plugins = pods_of(cluster, "node-plugin")
    if not plugins or cluster.habits.minor < POLICIES_SINCE or "validatingadmissionpolicies" in installed.unread:
        return
    check, cure = "admission policies", "apply them anew, and see docs/security.md"
    bound = {body["spec"].get("policyName") for body in installed.bindings}
    account = f"system:serviceaccount:{plugins[0]['metadata']['namespace']}:{plugins[0]['spec'].get('serviceAccountName', 'default')}"
    wanted = CLASSIC_POLICIES if cluster.is_classic else POLICIES
    wrong = []
    for name in wanted:
        policy = named(installed.policies, name)
        if policy is None:
            wrong.append(f"{name} is missing")
        elif name not in bound and "validatingadmissionpolicybindings" not in installed.unread:
            wrong.append(f"{name} has no binding")
        elif account not in str(policy["spec"].get("matchConditions")):
            wrong.append(f"{name} is not for {account}")
    if wrong:
        seen = f"{'; '.join(wrong)}: a node's plugin could write for other nodes"
        yield Finding(Verdict.WARNING, check, "", seen, cure)
    else:
        yield Finding(Verdict.OK, check, "", ", ".join(wanted))


def _webhook(installed: Installation) -> Iterator[Finding]:
    for body in installed.webhooks:
        for hook in body.get("webhooks") or ():
            if hook["name"] == WEBHOOK:
                yield _hook(body["metadata"]["name"], hook, installed)


def _hook(name: str, hook: Json, installed: Installation) -> Finding:
    config, check = hook.get("clientConfig") or {}, "webhook"
    service = config.get("service") or {}
    where = f"{service.get('namespace')}/{service.get('name')}"
    wrong = []
    if not config.get("caBundle"):
        wrong.append("its caBundle is empty, so that the API server trusts no certificate of it")
    if service and "endpointslices" not in installed.unread and not _served(service, installed.endpoints):
        wrong.append(f"Service {where} has no endpoint that is ready")
    if not wrong:
        return Finding(Verdict.OK, check, "", name)
    refuses = hook.get("failurePolicy") == "Fail"
    then = "every claim is refused" if refuses else "wrong claims are found out on the node only"
    verdict = Verdict.PROBLEM if refuses else Verdict.WARNING
    return Finding(verdict, check, "", f"{name}: {' and '.join(wrong)}: {then}", "docs/runbooks/IntelGpuWebhookFailing.md")


def _served(service: Json, endpoints: tuple[Json, ...]) -> bool:
    return any(
        (endpoint.get("conditions") or {}).get("ready", True)
        for body in endpoints
        if body["metadata"].get("namespace") == service.get("namespace")
        and (body["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service.get("name")
        for endpoint in body.get("endpoints") or ()
    )
