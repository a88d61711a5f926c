"""Pods and claims as users write them."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.e2e.api import Api, Doc

BUSYBOX = os.environ.get("CLUSTER_POD_IMAGE", "registry.local/busybox:1")
OPEN_ALL = "for node in /dev/dri/card*; do dd if=$node count=0 2>/dev/null || exit 1; done"
STAY = "sleep 100000"

FIRST_WORDS_SECONDS = 10


class Namespace:
    """One test's namespace: pods, claims and templates in it."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name

    def empty(self) -> None:
        """No pod, no claim."""
        for pod in self.api.list("Pod", self.name):
            self.api.delete("Pod", pod["metadata"]["name"], self.name, grace=0)
        self.api.wait("Pod", lambda pods: not pods, namespace=self.name, what="no pod left")
        for claim in self.api.list("ResourceClaim", self.name):
            self.api.delete("ResourceClaim", claim["metadata"]["name"], self.name)

    # --- claims -------------------------------------------------------------------------------------------------------------------------

    def _requests(self, requests: list[Doc]) -> list[Doc]:
        """Requests as v1 writes them, for the version that is served: v1alpha3 and v1beta1 have no level `exactly`."""
        if self.api.dra in ("v1", "v1beta2"):
            return requests
        return [{"name": request["name"], **request["exactly"]} if "exactly" in request else request for request in requests]

    def claim_spec(self, *requests: Doc, config: list[Doc] | None = None, constraints: list[Doc] | None = None) -> Doc:
        devices: Doc = {"requests": self._requests(list(requests) or [request()])}
        if config is not None:
            devices["config"] = config
        if constraints is not None:
            devices["constraints"] = constraints
        return {"devices": devices}

    def template(self, name: str, *requests: Doc, **more: Any) -> None:
        self.api.create(
            {
                "apiVersion": f"resource.k8s.io/{self.api.dra}",
                "kind": "ResourceClaimTemplate",
                "metadata": {"name": name},
                "spec": {"spec": self.claim_spec(*requests, **more)},
            },
            self.name,
        )

    def claim(self, name: str, *requests: Doc, **more: Any) -> None:
        self.api.create(
            {
                "apiVersion": f"resource.k8s.io/{self.api.dra}",
                "kind": "ResourceClaim",
                "metadata": {"name": name},
                "spec": self.claim_spec(*requests, **more),
            },
            self.name,
        )

    # --- pods ---------------------------------------------------------------------------------------------------------------------------

    def pod(
        self,
        name: str,
        *,
        template: str | None = None,
        claim: str | None = None,
        containers: dict[str, Doc] | None = None,
        command: str = STAY,
        grace: int = 0,
        limits: Doc | None = None,
        restart: str = "Never",
    ) -> None:
        """A pod of one container, or of `containers`: name -> claim reference, such as {"name": "gpu", "request": "a"}."""
        source = {"resourceClaimTemplateName": template} if template else {"resourceClaimName": claim} if claim else None
        uses = containers or {"main": {"name": "gpu"}}
        made = []
        for container, reference in uses.items():
            resources: Doc = {"claims": [reference]} if source is not None else {}
            if limits is not None:
                resources["limits"] = limits
            shell = ["/bin/sh", "-c", command]
            made.append({"name": container, "image": BUSYBOX, "command": shell, "resources": resources})
        spec: Doc = {"restartPolicy": restart, "terminationGracePeriodSeconds": grace, "containers": made}
        if source is not None:
            spec["resourceClaims"] = [{"name": "gpu", **({"source": source} if self.api.dra == "v1alpha2" else source)}]
        self.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, self.name)

    def ready(self, *names: str, seconds: float = 60) -> None:
        def all_ready(pods: dict[str, Doc]) -> bool:
            return all(is_ready(pods.get(name)) for name in names)

        self.api.wait("Pod", all_ready, namespace=self.name, what=f"pods {', '.join(names)} Ready", seconds=seconds)

    def ready_again(self, name: str, seconds: float = 60) -> None:
        """Ready in another container than now; right after a reboot the API server still says Ready of what is gone."""
        before = self._restarts(self.api.get("Pod", name, self.name))

        def restarted(pods: dict[str, Doc]) -> bool:
            return is_ready(pods.get(name)) and self._restarts(pods[name]) > before

        self.api.wait("Pod", restarted, namespace=self.name, what=f"pod {name} Ready again", seconds=seconds)

    @staticmethod
    def _restarts(pod: Doc | None) -> int:
        return sum(status["restartCount"] for status in (pod or {}).get("status", {}).get("containerStatuses") or [])

    def ended(self, name: str, seconds: float = 60) -> str:
        """`Succeeded` or `Failed`."""

        def phase(pods: dict[str, Doc]) -> str | None:
            now = pods.get(name, {}).get("status", {}).get("phase")
            return now if now in ("Succeeded", "Failed") else None

        return str(self.api.wait("Pod", phase, namespace=self.name, what=f"the end of pod {name}", seconds=seconds))

    def all_succeeded(self, names: list[str], seconds: float) -> None:
        def done(pods: dict[str, Doc]) -> bool:
            phases = [pods.get(name, {}).get("status", {}).get("phase") for name in names]
            assert "Failed" not in phases, [name for name, phase in zip(names, phases, strict=True) if phase == "Failed"]
            return set(phases) == {"Succeeded"}

        self.api.wait("Pod", done, namespace=self.name, what=f"the success of {len(names)} pods", seconds=seconds)

    def delete(self, *names: str) -> None:
        for name in names:
            self.api.delete("Pod", name, self.name)
        self.api.wait("Pod", lambda pods: not set(names) & set(pods), namespace=self.name, what=f"the end of {', '.join(names)}")

    def logs(self, pod: str, container: str = "main") -> str:
        """What a running container has written: its first words come a moment after it is ready."""
        until = time.monotonic() + FIRST_WORDS_SECONDS
        while not (said := self.api.raw_text(f"/api/v1/namespaces/{self.name}/pods/{pod}/log?container={container}")):
            if time.monotonic() > until:
                break
            time.sleep(0.1)  # the log is a file on the node: nothing tells of its growth
        return said

    # --- what was allocated -------------------------------------------------------------------------------------------------------------

    def allocated(self) -> dict[str, list[str]]:
        """Claim -> its devices, in the order of its requests."""
        found = {}
        for claim in self.api.list("ResourceClaim", self.name):
            allocation = claim.get("status", {}).get("allocation")
            if allocation:
                found[claim["metadata"]["name"]] = [result["device"] for result in allocation["devices"].get("results", [])]
        return found

    def claims_gone(self) -> None:
        self.api.wait("ResourceClaim", lambda claims: not claims, namespace=self.name, what="no claim left")


def is_ready(pod: Doc | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def request(name: str = "gpu", *, cel: str | None = None, device_class: str = "gpu.intel.com", **more: Any) -> Doc:
    exactly: Doc = {"deviceClassName": device_class, **more}
    if cel is not None:
        exactly["selectors"] = [{"cel": {"expression": cel}}]
    return {"name": name, "exactly": exactly}


def opaque(**parameters: Any) -> list[Doc]:
    config = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", **parameters}
    return [{"opaque": {"driver": "gpu.intel.com", "parameters": config}}]
