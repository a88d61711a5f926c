"""Pods and claims as users of Kubernetes 1.28 to 1.30 write them: parameters in an object of their own, a class, one claim for each."""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from tests.e2e.api import Doc
from tests.e2e.driver import ROOT
from tests.e2e.pods import BUSYBOX, OPEN_ALL, STAY, Namespace

COUNT: Final = f"{OPEN_ALL} && ls /dev/dri | grep -c card; {STAY}"
GROUP_VERSION: Final = "gpu.resource.intel.com/v1alpha2"


class ClassicNamespace(Namespace):
    def example(self, name: str) -> None:
        """One of manifests/examples/classic, with an image that is there, and pods that open what they were given and say how many."""
        for doc in yaml.safe_load_all((ROOT / "manifests" / "examples" / "classic" / f"{name}.yaml").read_text()):
            if doc["kind"] == "Pod":
                doc["spec"]["terminationGracePeriodSeconds"] = 0
                for container in doc["spec"]["containers"]:
                    container |= {"image": BUSYBOX, "command": ["/bin/sh", "-c", COUNT]}
            self.api.create(doc, self.name)

    def parameters(self, name: str, **spec: Any) -> None:
        self.api.create({"apiVersion": GROUP_VERSION, "kind": "GpuClaimParameters", "metadata": {"name": name}, "spec": spec}, self.name)

    def asked(self, of_class: str = "intel-gpu", parameters: str | None = None, mode: str | None = None) -> Doc:
        """A claim's spec."""
        spec: Doc = {"resourceClassName": of_class}
        if parameters is not None:
            spec["parametersRef"] = {"apiGroup": GROUP_VERSION, "kind": "GpuClaimParameters", "name": parameters}
        if mode is not None:
            spec["allocationMode"] = mode
        return spec

    def ask(self, name: str, *, of_class: str = "intel-gpu", mode: str | None = None, as_template: bool = True, **parameters: Any) -> None:
        """A template, or a claim, with parameters of the same name if there are any."""
        if parameters:
            self.parameters(name, **parameters)
        spec = self.asked(of_class, name if parameters else None, mode)
        kind = "ResourceClaimTemplate" if as_template else "ResourceClaim"
        body = {"apiVersion": f"resource.k8s.io/{self.api.dra}", "kind": kind, "metadata": {"name": name}}
        self.api.create(body | {"spec": {"spec": spec} if as_template else spec}, self.name)

    def handles(self) -> dict[str, Doc]:
        """Claim -> what its resource handle says; claims that the original driver allocated have none."""
        found = {}
        for claim in self.api.list("ResourceClaim", self.name):
            for handle in (claim.get("status", {}).get("allocation") or {}).get("resourceHandles") or []:
                found[claim["metadata"]["name"]] = json.loads(handle["data"])
        return found

    def parts(self) -> list[Doc]:
        """Of all claims: {uid, memory, millicores}, or {uid, vfs, layout}."""
        return [part for handle in self.handles().values() for part in handle.get("parts", [])]

    def counted(self, pod: str) -> int:
        """The GPUs that a pod with the command COUNT has opened."""
        return int(self.logs(pod))
