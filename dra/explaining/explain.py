"""Why a pod or a claim is pending, from one look at the cluster; pure, whichever DRA the cluster has."""

from __future__ import annotations

import msgspec

from dra.explaining import classic_claims, happenings, pod_claims, structured_claims
from dra.explaining.cluster import Cluster, Json, named
from dra.explaining.pod_claims import Entry
from dra.explaining.requests import Requests
from dra.explaining.verdicts import ClaimVerdict, Explanation, State

_NO_CLAIM = ("FailedResourceClaimCreation",)
_ENDED = ("Succeeded", "Failed")


def claim(cluster: Cluster, body: Json) -> Explanation:
    """Of one claim, for the pod that waits for it, or any that uses it."""
    users = [pod for pod in cluster.pods if pod_claims.uses(pod, body) and (pod.get("status") or {}).get("phase") not in _ENDED]
    users.sort(key=lambda pod: (pod.get("status") or {}).get("phase") != "Pending")
    pod = users[0] if users else None
    verdict = _claim(cluster, Requests(cluster), body, pod, _beside(cluster, body, pod))
    said = happenings.warnings(cluster, [body, *users])
    return Explanation(
        subject=f"claim/{body['metadata']['name']}",
        namespace=body["metadata"].get("namespace", ""),
        fine=verdict.is_fine,
        claims=(verdict,),
        events=happenings.sentences(said),
        summary=verdict.summary,
        cure=verdict.cure,
    )


def pod(cluster: Cluster, body: Json) -> Explanation:
    """Of a pod: its own causes, then each of its claims."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    phase = status.get("phase", "Pending")
    requests = Requests(cluster)
    verdicts = tuple(_entry(cluster, requests, body, entry) for entry in pod_claims.entries(body))
    said = happenings.warnings(cluster, [body])
    made = Explanation(
        subject=f"pod/{body['metadata']['name']}",
        namespace=body["metadata"].get("namespace", ""),
        fine=False,
        pod_phase=phase,
        causes=_of_pod(body),
        claims=verdicts,
        events=happenings.sentences(said),
        summary="",
    )
    bad = next((verdict for verdict in verdicts if not verdict.is_fine), None)
    if phase in _ENDED:
        return msgspec.structs.replace(made, fine=True, summary=f"it is not pending: it has ended ({phase})")
    if phase == "Running" and (bad is None or bad.state is State.PENDING):
        return msgspec.structs.replace(made, fine=True, summary=f"it is not pending: it runs on {spec.get('nodeName', 'a node')}")
    if made.causes:
        gated = "remove the gates: whoever set them does it when it is time" if spec.get("schedulingGates") else ""
        return msgspec.structs.replace(made, summary=made.causes[0], cure=gated)
    if bad is not None:
        what = f"claim {bad.claim or bad.entry}"
        return msgspec.structs.replace(made, summary=f"{what}: {bad.summary}", cure=bad.cure)
    if not verdicts:
        return msgspec.structs.replace(made, summary="it asks for no claims: its GPUs are not what it waits for", cure=_words(made))
    where = f"on {spec['nodeName']}, which starts its containers" if spec.get("nodeName") else "but the pod has no node yet"
    return msgspec.structs.replace(
        made, summary=f"all its claims are allocated, {where}: it is not GPUs that it waits for", cure=_words(made)
    )


def _words(made: Explanation) -> str:
    return "see the cluster's own words above" if made.events else ""


def _of_pod(body: Json) -> tuple[str, ...]:
    if body["metadata"].get("deletionTimestamp"):
        return ("the pod is being deleted: it is not scheduled any more",)
    if gates := (body.get("spec") or {}).get("schedulingGates"):
        return (f"the pod has scheduling gates: {', '.join(gate['name'] for gate in gates)}",)
    return ()


def _entry(cluster: Cluster, requests: Requests, body: Json, entry: Entry) -> ClaimVerdict:
    namespace = body["metadata"].get("namespace", "")
    made = ClaimVerdict(namespace=namespace, claim=entry.claim, entry=entry.name, state=State.ABSENT, summary="")
    if not entry.claim:
        if "resourceclaimtemplates" not in cluster.unread and named(cluster.templates, entry.template, namespace) is None:
            text = f"there is no ResourceClaimTemplate {entry.template} in namespace {namespace}"
            cure = f"create the template {entry.template}, or correct spec.resourceClaims of the pod"
            return msgspec.structs.replace(made, causes=(text,), summary=text, cure=cure)
        refused = happenings.last(happenings.warnings(cluster, [body]), _NO_CLAIM)
        text = happenings.message(refused) if refused is not None else f"it is not made from the template {entry.template} yet"
        cure = "correct the template" if refused is not None else "wait; if it stays, does kube-controller-manager run?"
        return msgspec.structs.replace(made, causes=(text,), summary=text, cure=cure)
    found = cluster.claim(namespace, entry.claim)
    if found is None:
        text = f"there is no ResourceClaim {entry.claim} in namespace {namespace}"
        cure = (
            "delete the pod: its claim was deleted, and a new pod gets a new one"
            if entry.template
            else f"create the claim {entry.claim}, or correct the pod"
        )
        return msgspec.structs.replace(made, causes=(text,), summary=text, cure=cure)
    return msgspec.structs.replace(_claim(cluster, requests, found, body, _beside(cluster, found, body)), entry=entry.name)


def _claim(cluster: Cluster, requests: Requests, body: Json, user: Json | None, beside: list[Json]) -> ClaimVerdict:
    if cluster.is_classic:
        return classic_claims.explain(cluster, body, user, beside)
    return structured_claims.explain(cluster, requests, body, user, beside=beside)


def _beside(cluster: Cluster, body: Json, user: Json | None) -> list[Json]:
    """The pod's other claims that have no allocation."""
    if user is None:
        return []
    names = {entry.claim for entry in pod_claims.entries(user)} - {body["metadata"]["name"]}
    namespace = body["metadata"].get("namespace", "")
    found = (cluster.claim(namespace, name) for name in sorted(names) if name)
    return [each for each in found if each is not None and not (each.get("status") or {}).get("allocation")]
