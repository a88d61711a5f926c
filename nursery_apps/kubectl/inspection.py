"""Reads what an installation of the driver consists of. Nothing of it is indispensable: what cannot be read is said to be."""

from __future__ import annotations

from typing import Any, Final

from dra.explaining import feature_gates
from dra.explaining.checks import OURS, PRODUCT, pods_of
from dra.explaining.cluster import Cluster, Json
from dra.explaining.installation import POLICIES_SINCE, Installation
from nursery_apps.kube_reader import NoAnswer
from nursery_apps.kubectl.problems import Missing, Refused
from nursery_apps.kubectl.reading import Reading

_ADMISSION: Final = "admissionregistration.k8s.io/v1"


def read(reading: Reading, cluster: Cluster) -> Installation:
    """
    Raises:
        NoAnswer, Problem: but not for want of a right.
    """
    unread: dict[str, str] = {}

    def listed(group_version: str, plural: str, namespace: str = "", labels: str = "") -> tuple[Json, ...]:
        if plural in unread:
            return ()
        try:
            return reading.installed(group_version, plural, namespace=namespace, labels=labels)
        except (Missing, Refused) as refused:
            unread[plural] = str(refused)
            return ()

    ours = f"{PRODUCT}={OURS}"
    daemon_sets = listed("apps/v1", "daemonsets", labels=ours)
    own = [*daemon_sets, *pods_of(cluster, "node-plugin"), *pods_of(cluster, "controller")]
    namespaces = sorted({body["metadata"]["namespace"] for body in own})
    policies: dict[str, Any] = {}
    if cluster.habits.minor >= POLICIES_SINCE:  # before they are served in other versions, if at all
        policies["policies"] = listed(_ADMISSION, "validatingadmissionpolicies")
        policies["bindings"] = listed(_ADMISSION, "validatingadmissionpolicybindings")
    try:
        gates = feature_gates.read(reading.metrics())
    except (NoAnswer, Refused) as refused:
        gates = None
        unread["metrics"] = str(refused)
    return Installation(
        daemon_sets=daemon_sets,
        deployments=listed("apps/v1", "deployments", labels=ours),
        leases=tuple(body for namespace in namespaces for body in listed("coordination.k8s.io/v1", "leases", namespace)),
        webhooks=listed(_ADMISSION, "validatingwebhookconfigurations"),
        endpoints=tuple(body for namespace in namespaces for body in listed("discovery.k8s.io/v1", "endpointslices", namespace)),
        gates=gates or None,
        unread=unread,
        **policies,
    )
