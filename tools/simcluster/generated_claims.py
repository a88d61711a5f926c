"""Claims that kube-controller-manager makes from templates, one for each pod claim that names one, recorded in the pod's status."""

from __future__ import annotations

from functools import partial
from typing import Final

from tools.simcluster import events, pod_claims
from tools.simcluster.kinds import CLAIM, POD, TEMPLATE, Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry

POD_CLAIM: Final = "resource.kubernetes.io/pod-claim-name"
"""Annotation of a generated claim: its name in the pod."""
FINAL: Final = ("Succeeded", "Failed")


def make(registry: Registry, pod: Json) -> None:
    """Those that are missing and whose template is there."""
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp") or pod["status"].get("phase") in FINAL:
        return
    known = {status["name"] for status in pod["status"].get("resourceClaimStatuses") or ()}
    made = []
    for entry in pod_claims.entries(pod):
        template = registry.store.get(TEMPLATE, metadata["namespace"], entry.template) if entry.template else None
        if template is None or entry.name in known:
            continue
        try:
            claim = registry.create(CLAIM, _generated(pod, entry.name, template), metadata["namespace"])
        except Refused as refused:
            text = f"PodResourceClaim {entry.name}: failed to create ResourceClaim: {refused.message}"
            events.say(registry, pod, "Warning", "FailedResourceClaimCreation", text, "resource_claim", once=True)
            continue
        made.append({"name": entry.name, "resourceClaimName": claim["metadata"]["name"]})
    if made:
        registry.amend(POD, pod, partial(_record, made=made), subresource="status")


def _generated(pod: Json, entry: str, template: Json) -> Json:
    metadata, inner = pod["metadata"], template["spec"].get("metadata") or {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "metadata": {
            "generateName": f"{metadata['name']}-{entry}-",
            "labels": inner.get("labels"),
            "annotations": {**(inner.get("annotations") or {}), POD_CLAIM: entry},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"]["spec"],
    }


def _record(body: Json, made: list[Json]) -> None:
    body["status"]["resourceClaimStatuses"] = [*(body["status"].get("resourceClaimStatuses") or ()), *made]
