"""Reads a cluster: each kind once, in pages, in the newest version of it that is served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from dra.classic.names import GROUP_VERSION, HEARTBEAT_LABEL
from dra.explaining.cluster import CLASSIC, Cluster, Json
from dra.structured import shapes
from nursery_apps.kube_reader import Answer, KubeReader, NoAnswer, Ran
from nursery_apps.kubectl.problems import Missing, Problem, Refused

PAGE: Final = 500
GROUP: Final = "resource.k8s.io"
VERSIONS: Final = (*shapes.VERSIONS, CLASSIC)

_CORE: Final = ("nodes", "pods", "events")
_STRUCTURED: Final = ("resourceslices", "resourceclaims", "resourceclaimtemplates", "deviceclasses", "devicetaintrules")
_CLASSIC: Final = ("resourceclaims", "resourceclaimtemplates", "resourceclasses", "podschedulingcontexts")
_CUSTOM: Final = ("gpuallocationstates", "gpuclassparameters", "gpuclaimparameters", "leases")
_FIELDS: Final = {
    "nodes": "nodes",
    "pods": "pods",
    "events": "events",
    "resourceslices": "slices",
    "resourceclaims": "claims",
    "resourceclaimtemplates": "templates",
    "deviceclasses": "classes",
    "resourceclasses": "classes",
    "devicetaintrules": "taint_rules",
    "podschedulingcontexts": "contexts",
    "gpuallocationstates": "states",
    "leases": "leases",
    "gpuclassparameters": "class_parameters",
    "gpuclaimparameters": "claim_parameters",
}
GPUS: Final = frozenset({"nodes", "resourceslices", "resourceclaims", "devicetaintrules", "gpuallocationstates"})
"""What there is and who has it, whichever DRA it is."""
ALL: Final = frozenset(_FIELDS)
_NAMESPACED: Final = frozenset({"pods", "events", "resourceclaims", "resourceclaimtemplates", "podschedulingcontexts"})
_LABELS: Final = {"leases": HEARTBEAT_LABEL}
"""Of nodes there are as many again."""
INDISPENSABLE: Final = frozenset({"resourceslices", "resourceclaims", "gpuallocationstates"})
"""Without which nothing true can be said; all else is left out and said to be unread."""


class Reading:
    """One run's look at a cluster."""

    def __init__(self, api: KubeReader, now: Callable[[], str]) -> None:
        """`now` answers in RFC 3339."""
        self._api, self._now = api, now
        self._version = ""
        self._served: dict[str, str] | None = None

    @property
    def namespace(self) -> str:
        """The context's."""
        return self._api.namespace

    def cluster(
        self, kinds: Collection[str], *, namespace: str = "", claims_namespace: str = "", needed: Collection[str] = INDISPENSABLE
    ) -> Cluster:
        """The kinds of these plurals that the cluster serves; it does not serve all of both DRAs.

        Args:
            namespace: of what is namespaced, except claims; empty for all.
            claims_namespace: the same for claims: who holds a device may be anywhere.
            needed: plurals whose refusal ends it.

        Raises:
            NoAnswer, Problem
        """
        served = self.served()
        found: dict[str, Any] = {}
        unread: dict[str, str] = {}
        for plural in (*_STRUCTURED, *_CLASSIC, *_CUSTOM, *_CORE):
            if plural not in kinds or plural not in served or _FIELDS[plural] in found:
                continue
            where = (claims_namespace if plural == "resourceclaims" else namespace) if plural in _NAMESPACED else ""
            try:
                found[_FIELDS[plural]] = tuple(self._list(served[plural], plural, where, _LABELS.get(plural, "")))
            except Refused as refused:
                if plural in needed:
                    raise
                unread[plural] = str(refused)
            except Missing as missing:  # a definition of ours that is not installed, a version that went away
                unread[plural] = str(missing)
        return Cluster(version=self._version, api=self.api, at=self._now(), namespace=claims_namespace, unread=unread, **found)

    def one(self, plural: str, namespace: str, name: str) -> Json:
        """One object.

        Raises:
            Missing: there is no such object.
            NoAnswer, Problem
        """
        group_version = self.served().get(plural)
        if group_version is None:
            raise Missing(f"the cluster (Kubernetes {self._version}) serves no {plural}")
        path = f"{_path(group_version)}/namespaces/{namespace}/{plural}/{name}"
        body = self._get(path, what=f"{plural}/{name} in namespace {namespace}", right=f"get {plural}.{_group(group_version)}")
        return _newest(plural, group_version.rpartition("/")[2], body)

    def installed(self, group_version: str, plural: str, *, namespace: str = "", labels: str = "") -> tuple[Json, ...]:
        """What an installation brings; cluster-wide, or everywhere, if no namespace is given.

        Raises:
            Missing: the kind is not served in this version.
            NoAnswer, Problem
        """
        return tuple(self._list(group_version, plural, namespace, labels))

    def metrics(self) -> str:
        """The API server's own.

        Raises:
            NoAnswer, Problem
        """
        answer = self._api.get("/metrics")
        if answer.status != 200:
            raise Refused(_refusal(answer, "its metrics", "get the URL /metrics"), status=answer.status)
        return answer.body.decode(errors="replace")

    def proxied(self, namespace: str, pod_and_port: str, path: str) -> str:
        """What a pod answers over HTTP, whatever the code; empty where it cannot be asked (no right to `pods/proxy`, no answer)."""
        try:
            answer = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{pod_and_port}/proxy/{path}")
        except NoAnswer:
            return ""
        told = answer.body.decode(errors="replace")
        return "" if answer.status in (401, 403, 404) or told.startswith("{") else told  # a Status is the API server's own word

    def run(self, namespace: str, pod: str, command: Sequence[str]) -> Ran:
        """See KubeReader."""
        return self._api.run(namespace, pod, command)

    @property
    def api(self) -> str:
        """Version of `resource.k8s.io`; empty where none is served."""
        return self.served().get("resourceclaims", "").rpartition("/")[2]

    def served(self) -> Mapping[str, str]:
        """Plural -> group and version in which it is read.

        Raises:
            NoAnswer, Problem
        """
        if self._served is None:
            self._version = str(self._get("/version", what="the server's version").get("gitVersion", ""))
            self._served = dict.fromkeys(_CORE, "v1") | self._resources()
        return self._served

    def _resources(self) -> dict[str, str]:
        try:
            group = self._get(f"/apis/{GROUP}", what=GROUP)
        except Missing:
            return {}
        offered = {version["version"] for version in group.get("versions") or ()}
        found: dict[str, str] = {}
        for version in VERSIONS:
            if version not in offered or (version == CLASSIC and found):
                continue
            for resource in self._get(f"/apis/{GROUP}/{version}", what=f"{GROUP}/{version}").get("resources") or ():
                if "/" not in resource["name"]:
                    found.setdefault(resource["name"], f"{GROUP}/{version}")
        if found.get("resourceclaims") == f"{GROUP}/{CLASSIC}":
            found |= dict.fromkeys(_CUSTOM, GROUP_VERSION) | {"leases": "coordination.k8s.io/v1"}
        return found

    def _list(self, group_version: str, plural: str, namespace: str, labels: str = "") -> list[Json]:
        path = f"{_path(group_version)}/{f'namespaces/{namespace}/' if namespace else ''}{plural}"
        where = f"in namespace {namespace}" if namespace else "in all namespaces" if plural in _NAMESPACED else ""
        right = f"list {plural}{f'.{_group(group_version)}' if _group(group_version) else ''} {where}".strip()
        items: list[Json] = []
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        while True:
            page = self._get(path, query, what=plural, right=right)
            items += page.get("items") or ()
            further = (page.get("metadata") or {}).get("continue")
            if not further:
                return [_newest(plural, group_version.rpartition("/")[2], body) for body in items]
            query["continue"] = further

    def _get(self, path: str, query: Mapping[str, str] | None = None, *, what: str, right: str = "") -> Json:
        answer = self._api.get(path, query)
        if answer.status == 200:
            try:
                return msgspec.json.decode(answer.body, type=dict[str, Any])
            except msgspec.DecodeError:
                raise Problem(f"what answers is no Kubernetes API server: {path} is not JSON") from None
        if answer.status == 404:
            raise Missing(f"there is no {what}")
        raise Refused(_refusal(answer, what, right), status=answer.status)


def _refusal(answer: Answer, what: str, right: str) -> str:
    if answer.status == 401:
        return "the API server does not accept these credentials (401): log in again, or choose another --context"
    try:
        message = str(msgspec.json.decode(answer.body, type=dict[str, Any]).get("message", ""))
    except msgspec.DecodeError:
        message = answer.body[:200].decode(errors="replace")
    if answer.status == 403:
        return f"not allowed: this needs the right to {right or f'read {what}'} (docs/kubectl-plugin.md has a ClusterRole)"
    return f"the API server refuses to tell {what} ({answer.status}): {message or 'no reason given'}"


def _path(group_version: str) -> str:
    return f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"


def _group(group_version: str) -> str:
    return group_version.rpartition("/")[0]


def _newest(plural: str, version: str, body: Json) -> Json:
    if plural == "resourceslices":
        return {**body, "spec": shapes.slice_spec(version, body.get("spec") or {})}
    if plural == "resourceclaims" and version != CLASSIC:
        return {**body, "spec": shapes.claim_spec(version, body.get("spec") or {})}
    if plural == "resourceclaimtemplates" and version != CLASSIC:
        spec = body.get("spec") or {}
        return {**body, "spec": {**spec, "spec": shapes.claim_spec(version, spec.get("spec") or {})}}
    return body
