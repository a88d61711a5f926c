"""The API server as the tests use it: the `kubernetes` client's dynamic half, waiting by watches."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

Doc = dict[str, Any]

USUAL_SECONDS = 60.0
"""A pod is Ready within a second on an idle machine; what takes this long has failed."""


VERSIONS = {
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Lease": "coordination.k8s.io/v1",
    "GpuAllocationState": "gpu.resource.intel.com/v1alpha2",
    "GpuClaimParameters": "gpu.resource.intel.com/v1alpha2",
    "GpuClassParameters": "gpu.resource.intel.com/v1alpha2",
    "SubjectAccessReview": "authorization.k8s.io/v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "FlowSchema": "flowcontrol.apiserver.k8s.io/v1",
    "PriorityLevelConfiguration": "flowcontrol.apiserver.k8s.io/v1",
}
"""Of the kinds that are neither of the core nor of dynamic resource allocation."""


class NotInTime(AssertionError):
    """What was waited for did not come; says how things stood instead."""


class Api:
    def __init__(self, kubeconfig: str) -> None:
        config.load_kube_config(kubeconfig)
        self.raw = client.ApiClient()
        self._dynamic = dynamic.DynamicClient(self.raw)
        self.version = tuple(int(part) for part in self.raw_get("/version")["gitVersion"].removeprefix("v").split(".")[:2])
        served = [entry["version"] for entry in self.raw_get("/apis/resource.k8s.io")["versions"]]
        self.dra = next(version for version in ("v1", "v1beta2", "v1beta1", "v1alpha3", "v1alpha2") if version in served)

    def raw_get(self, path: str) -> Any:
        return json.loads(self.raw_text(path))

    def raw_text(self, path: str) -> str:
        path, _, query = path.partition("?")
        pairs = [tuple(pair.split("=", 1)) for pair in query.split("&") if pair]
        return self._ask("GET", path, query_params=pairs, header_params={"Accept": "*/*"})

    def raw_post(self, path: str, body: Doc) -> str:
        return self._ask("POST", path, body=body, header_params={"Accept": "*/*", "Content-Type": "application/json"})

    def _ask(self, method: str, path: str, **more: Any) -> str:
        asked = self.raw.param_serialize(method, path, auth_settings=["BearerToken"], **more)
        answer = self.raw.call_api(*asked, _request_timeout=20)
        data: bytes = answer.read()
        if answer.status >= 400:
            raise client.ApiException(http_resp=answer)
        return data.decode()

    def _kind(self, kind: str) -> Any:
        version = f"resource.k8s.io/{self.dra}" if kind.startswith(("Resource", "Device", "PodScheduling")) else VERSIONS.get(kind, "v1")
        return self._dynamic.resources.get(api_version=version, kind=kind)

    def serves(self, kind: str) -> bool:
        try:
            self._kind(kind)
        except ResourceNotFoundError:
            return False
        return True

    def ready_nodes(self) -> list[str]:
        """Those that take any pod."""

        def takes_pods(node: Doc) -> bool:
            ready = any(
                condition["type"] == "Ready" and condition["status"] == "True" for condition in node["status"].get("conditions") or []
            )
            return ready and not node["spec"].get("taints") and not node["spec"].get("unschedulable")

        return [node["metadata"]["name"] for node in self.list("Node") if takes_pods(node)]

    # --- objects ------------------------------------------------------------------------------------------------------------------------

    def create(self, doc: Doc, namespace: str | None = None) -> Doc:
        made: Doc = self._kind(doc["kind"]).create(body=doc, namespace=namespace).to_dict()
        return made

    def get(self, kind: str, name: str, namespace: str | None = None) -> Doc | None:
        try:
            found: Doc = self._kind(kind).get(name=name, namespace=namespace, _request_timeout=20).to_dict()
        except NotFoundError:
            return None
        return found

    def list(self, kind: str, namespace: str | None = None, **options: str) -> list[Doc]:
        items: list[Doc] = self._kind(kind).get(namespace=namespace, _request_timeout=20, **options).to_dict()["items"]
        return items

    def patch(self, kind: str, name: str, change: Doc, namespace: str | None = None, *, subresource: str = "") -> Doc:
        """Strategic where the kind knows it, else merged."""
        content = "application/merge-patch+json"
        of = self._kind(kind)
        where = of.subresources[subresource] if subresource else of
        done: Doc = where.patch(name=name, body=change, namespace=namespace, content_type=content).to_dict()
        return done

    def label(self, kind: str, name: str, labels: dict[str, str]) -> None:
        """By an update of the whole object."""
        found = self.get(kind, name)
        assert found is not None, name
        found["metadata"].setdefault("labels", {}).update(labels)
        self._kind(kind).replace(body=found)

    def token(self, account: str, namespace: str, *, pod: Doc | None = None) -> str:
        """Of a service account; bound to a pod it tells the pod's node too, as the one that the kubelet mounts."""
        spec: Doc = {"audiences": [], "expirationSeconds": 600}
        if pod is not None:
            named = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", **named}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = client.CoreV1Api(self.raw).create_namespaced_service_account_token(account, namespace, body)
        return str(made.status.token)

    def bearing(self, token: str) -> Api:
        """The same server as somebody else."""
        other = copy.copy(self)
        configuration = copy.copy(self.raw.configuration)
        configuration.cert_file = configuration.key_file = None
        configuration.api_key = {"authorization": token}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        other.raw = client.ApiClient(configuration)
        other._dynamic = dynamic.DynamicClient(other.raw)
        return other

    def delete(self, kind: str, name: str, namespace: str | None = None, *, grace: int | None = None) -> None:
        body = {"gracePeriodSeconds": grace} if grace is not None else {}
        with contextlib.suppress(NotFoundError):
            self._kind(kind).delete(name=name, namespace=namespace, body=body)

    # --- waiting ------------------------------------------------------------------------------------------------------------------------

    def wait(
        self, kind: str, true: Callable[[dict[str, Doc]], Any], *, namespace: str | None = None, what: str, seconds: float = USUAL_SECONDS
    ) -> Any:
        """The first true value of `true(objects by name)`, asked at the start and after every change of one.

        Raises:
            NotInTime: it did not become true.
        """
        deadline = time.monotonic() + seconds
        while True:
            listing = self._kind(kind).get(namespace=namespace, _request_timeout=20).to_dict()
            objects = {item["metadata"]["name"]: item for item in listing["items"]}
            if value := true(objects):
                return value
            # 1.31 spells the list's metadata of its slices so.
            version = (listing.get("metadata") or listing["listMeta"])["resourceVersion"]
            for event in self._watch(kind, namespace, version, deadline):
                changed = event["object"]
                if event["type"] == "DELETED":
                    objects.pop(changed["metadata"]["name"], None)
                else:
                    objects[changed["metadata"]["name"]] = changed
                if value := true(objects):
                    return value
            if time.monotonic() > deadline:
                raise NotInTime(f"{what}: not within {seconds:.0f} s; {kind} objects: {json.dumps(_short(objects), indent=1)}")

    def _watch(self, kind: str, namespace: str | None, version: str, deadline: float) -> Iterator[Doc]:
        left = max(1, int(deadline - time.monotonic()) + 1)
        try:
            for event in self._kind(kind).watch(namespace=namespace, resource_version=version, timeout=left):
                yield {"type": event["type"], "object": event["raw_object"]}
                if time.monotonic() > deadline:
                    return
        except (client.ApiException, urllib3.exceptions.HTTPError):
            return  # the history is too short, or the server went away: list again

    def wait_gone(self, kind: str, name: str, namespace: str | None = None, *, seconds: float = USUAL_SECONDS) -> None:
        self.wait(kind, lambda objects: name not in objects, namespace=namespace, what=f"the end of {kind} {name}", seconds=seconds)

    def wait_event(self, regarding: str, reason: str, *, namespace: str = "default", text: str = "", seconds: float = USUAL_SECONDS) -> str:
        """The message of an Event about an object of this name."""

        def found(events: dict[str, Doc]) -> str | None:
            for event in events.values():
                if event["involvedObject"].get("name") == regarding and event["reason"] == reason and text in event["message"]:
                    return str(event["message"])
            return None

        return str(self.wait("Event", found, namespace=namespace, what=f"an Event {reason} about {regarding}", seconds=seconds))


def _short(objects: dict[str, Doc]) -> Doc:
    return {name: {"status": item.get("status"), "message": item.get("message")} for name, item in list(objects.items())[:20]}
