"""An installation with two controllers beside the node plugin."""

from __future__ import annotations

import os
import signal
from typing import Final

from tests.e2e.api import Doc
from tests.e2e.driver import Driver, component, total
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import is_ready
from tools.realcluster.node import until

CONTROLLER: Final = "controller"
LEASE: Final = "gpu-controller"
TAKE_OVER_SECONDS: Final = 60.0
"""A controller that was killed holds its Lease until that runs out."""


class ControlledDriver(Driver):
    def wait_ready(self, seconds: float = 60) -> None:
        """Plugin and controllers."""
        self.rolled_out(seconds)

        def both(found: dict[str, Doc]) -> bool:
            status, generation = found[CONTROLLER].get("status", {}), found[CONTROLLER]["metadata"]["generation"]
            return (status.get("observedGeneration"), status.get("readyReplicas")) == (generation, 2)

        self.api.wait("Deployment", both, namespace=self.namespace, what="two controllers Ready", seconds=seconds)

    def controllers(self) -> list[Doc]:
        return self.pods_of(CONTROLLER)

    def holder(self) -> str:
        """Who the Lease says leads; empty if nobody does."""
        lease = self.api.get("Lease", LEASE, self.namespace)
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    def leader(self) -> Doc:
        """The leader's pod."""

        def found() -> list[Doc]:
            holder = self.holder().rpartition("-")[0]
            return [pod for pod in self.controllers() if pod["metadata"]["name"] == holder]

        until("a leader", found, seconds=int(TAKE_OVER_SECONDS), look="the controllers' logs")
        return found()[0]

    def other_leads(self, holder: str) -> str:
        """Until somebody else than `holder` leads; who."""

        def other(leases: dict[str, Doc]) -> str | None:
            now = leases[LEASE]["spec"].get("holderIdentity")
            return now if now and now != holder else None

        what = f"another leader than {holder}"
        return str(self.api.wait("Lease", other, namespace=self.namespace, what=what, seconds=TAKE_OVER_SECONDS))

    def leads(self, name: str, **labels: str) -> float | None:
        """The leader's metric, None while there is none that answers."""
        for pod in self.controllers():
            text = self.controller_metrics(pod)
            if total(text, "intel_gpu_dra_leading") == 1:
                return total(text, f"intel_gpu_dra_{name}", **labels)
        return None

    def controller_metrics(self, pod: Doc) -> str:
        if not is_ready(pod):
            return ""
        return self.api.raw_text(f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:9177/proxy/metrics")

    def controller_log(self, pod: Doc) -> str:
        return self.api.raw_text(f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/log")

    def kill_leader(self, node: OwnNode) -> str:
        """SIGKILL; who it was."""
        holder, process = self.holder(), node.process_of(self.leader())
        assert process is not None
        os.kill(process, signal.SIGKILL)
        return holder

    def restarted(self, before: Doc) -> None:
        """Until a controller whose container ended runs and is Ready again: for some seconds after its end the API server believes that it
        still is."""

        def again(pods: dict[str, Doc]) -> bool:
            pod = pods[before["metadata"]["name"]]
            return is_ready(pod) and restarts(pod) > restarts(before)

        self.api.wait("Pod", again, namespace=self.namespace, what=f"{before['metadata']['name']} Ready again", seconds=60)

    def scale(self, replicas: int) -> None:
        """Of the controller; returns when it is so."""
        self.api.patch("Deployment", CONTROLLER, {"spec": {"replicas": replicas}}, self.namespace)

        def so(_: dict[str, Doc]) -> bool:
            return len([pod for pod in self.api.list("Pod", self.namespace) if component(pod) == CONTROLLER]) == replicas

        self.api.wait("Pod", so, namespace=self.namespace, what=f"{replicas} controllers")


def restarts(pod: Doc) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])
