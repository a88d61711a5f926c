"""Whether a cluster and its nodes are as the driver needs them: a finding for each question, with a cure where there is one.

What cannot be seen from the API server (is CDI switched on in a node's containerd 1.7?) is said to be unknown rather than guessed.
"""

from __future__ import annotations

import collections
import datetime
import enum
from collections.abc import Iterable, Iterator
from typing import Final, get_args

import msgspec

from dra import kubernetes_releases, semver
from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.explaining import happenings
from dra.explaining.cluster import Cluster, Json
from dra.kube.event_reasons import Reason
from dra.names import DRIVER_NAME

PRODUCT: Final = "app.kubernetes.io/name"
COMPONENT: Final = "app.kubernetes.io/component"
OURS: Final = "intel-gpu-dra"
RESTARTS: Final = 5
"""From so many on a pod does not restart for an update or a reboot."""
REASONS: Final = frozenset(get_args(Reason))


class Verdict(enum.StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    verdict: Verdict
    check: str
    """The question in two or three words."""
    about: str
    """A node's name; empty for the cluster."""
    seen: str
    cure: str = ""


def pods_of(cluster: Cluster, component: str) -> list[Json]:
    """The driver's own, wherever they are installed."""
    labels = ((pod, pod["metadata"].get("labels") or {}) for pod in cluster.pods)
    return [pod for pod, own in labels if own.get(PRODUCT) == OURS and own.get(COMPONENT) == component]


def is_ready(body: Json) -> bool:
    """A pod, or a node."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def of_cluster(cluster: Cluster) -> Iterator[Finding]:
    """What is asked once."""
    yield _release(cluster)
    yield _api(cluster)
    yield _classes(cluster)
    yield _installed(cluster)
    if cluster.is_classic:
        yield _controller(cluster)
    yield _one_version(cluster)
    yield _told(cluster)
    for plural, why in sorted(cluster.unread.items()):
        yield Finding(Verdict.UNKNOWN, "rights", "", f"{plural} could not be read: {why}", "docs/kubectl-plugin.md has a ClusterRole")


def _release(cluster: Cluster) -> Finding:
    check, release = "Kubernetes", semver.release(cluster.version)
    if release is None:
        return Finding(Verdict.UNKNOWN, check, "", f"the API server calls itself {cluster.version!r}")
    if release < kubernetes_releases.OLDEST:
        return Finding(Verdict.PROBLEM, check, "", f"{cluster.version} is older than the driver is for", "upgrade to 1.28 or newer")
    if kubernetes_releases.is_newer(cluster.version):
        return Finding(Verdict.WARNING, check, "", kubernetes_releases.remark("the API server", cluster.version), "docs/versions.md")
    return Finding(Verdict.OK, check, "", cluster.version)


def _api(cluster: Cluster) -> Finding:
    check = "dynamic resource allocation"
    if not cluster.api:
        seen = "the API server does not serve resource.k8s.io"
        return Finding(Verdict.PROBLEM, check, "", seen, "switch it on: docs/cluster-setup.md")
    return Finding(Verdict.OK, check, "", f"resource.k8s.io/{cluster.api}")


def _classes(cluster: Cluster) -> Finding:
    check = "classes"
    if "deviceclasses" in cluster.unread or "resourceclasses" in cluster.unread:
        return Finding(Verdict.UNKNOWN, check, "", "classes could not be read")
    if cluster.is_classic:
        ours = [body["metadata"]["name"] for body in cluster.classes if body.get("driverName") == CLASSIC_DRIVER_NAME]
    else:
        ours = [body["metadata"]["name"] for body in cluster.classes if DRIVER_NAME in str(body.get("spec"))]
    if ours:
        return Finding(Verdict.OK, check, "", ", ".join(sorted(ours)))
    return Finding(Verdict.PROBLEM, check, "", "no class names this driver", "install it: docs/installing.md")


def _installed(cluster: Cluster) -> Finding:
    plugins = pods_of(cluster, "node-plugin")
    if "pods" in cluster.unread:
        return Finding(Verdict.UNKNOWN, "node plugins", "", "pods could not be read")
    if not plugins:
        return Finding(Verdict.PROBLEM, "node plugins", "", "no pod of the driver's DaemonSet", "install it: docs/installing.md")
    ready = sum(map(is_ready, plugins))
    verdict = Verdict.OK if ready == len(plugins) else Verdict.PROBLEM
    cure = "" if verdict is Verdict.OK else "see their nodes below"
    return Finding(verdict, "node plugins", "", f"{ready} of {len(plugins)} are Ready", cure)


def _controller(cluster: Cluster) -> Finding:
    ready = [pod for pod in pods_of(cluster, "controller") if is_ready(pod)]
    if ready:
        return Finding(Verdict.OK, "controller", "", f"{len(ready)} Ready")
    if "pods" in cluster.unread:
        return Finding(Verdict.UNKNOWN, "controller", "", "pods could not be read")
    seen = f"no controller is Ready, and on {cluster.version} nobody else allocates"
    return Finding(Verdict.PROBLEM, "controller", "", seen, "kubectl get pods -A -l app.kubernetes.io/component=controller")


def _one_version(cluster: Cluster) -> Finding:
    images = collections.Counter(
        container["image"]
        for component in ("node-plugin", "controller")
        for pod in pods_of(cluster, component)
        for container in pod["spec"]["containers"]
    )
    if len(images) > 1:
        seen = ", ".join(f"{count} with {image}" for image, count in images.most_common())
        return Finding(Verdict.WARNING, "one version", "", seen, "wait for the update's end, or look why it does not come")
    return Finding(Verdict.OK, "one version", "", next(iter(images), "nothing runs"))


def _told(cluster: Cluster) -> Finding:
    """The driver's Warning Events of the last hour."""
    if "events" in cluster.unread:
        return Finding(Verdict.UNKNOWN, "Events", "", "Events could not be read")
    since = (datetime.datetime.fromisoformat(cluster.at) - datetime.timedelta(hours=1)).isoformat()
    found: collections.Counter[str] = collections.Counter()
    for event in cluster.events:
        if event.get("type") == "Warning" and event.get("reason") in REASONS and happenings.when(event) >= since[:19]:
            found[event["reason"]] += event.get("count") or 1
    if not found:
        return Finding(Verdict.OK, "Events", "", "no warning of the driver")
    seen = ", ".join(f"{reason} {count}×" for reason, count in found.most_common(4))
    return Finding(Verdict.WARNING, "Events", "", seen, f"docs/events/{found.most_common(1)[0][0]}.md")


def worst(findings: Iterable[Finding]) -> Verdict:
    return max((finding.verdict for finding in findings), key=list(Verdict).index, default=Verdict.OK)
