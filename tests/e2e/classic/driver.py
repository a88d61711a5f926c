"""The installation of Kubernetes 1.28 to 1.30: a node plugin and two controllers."""

from __future__ import annotations

import pathlib
from typing import Any, Final

from tests.e2e.api import Doc
from tests.e2e.controllers import ControlledDriver
from tests.e2e.driver import ROOT
from tools.realcluster.node import until

FINALIZER: Final = "gpu.resource.intel.com/deletion-protection"


class ClassicDriver(ControlledDriver):
    namespace = "intel-gpu-resource-driver"

    def install(self, work: pathlib.Path) -> None:
        """As a user does it: first the kinds, then the rest."""
        self.kubectl("apply", "-k", str(ROOT / "manifests" / "crds"))
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        super().install(work)

    def wait_ready(self, seconds: float = 60) -> None:
        """Plugin, controllers and the node's state."""
        super().wait_ready(seconds)
        self.state_is("Ready", seconds)
        until("a leader that allocates", lambda: self.leads("nodes", ready="true") == 1, seconds=int(seconds), look="the controllers' logs")

    # --- the node's state ---------------------------------------------------------------------------------------------------------------

    def state(self) -> Doc:
        found = self.api.get("GpuAllocationState", self.node, self.namespace)
        assert found is not None, "there is no GpuAllocationState"
        return found

    def state_is(self, wanted: str, seconds: float = 60) -> None:
        def so(states: dict[str, Doc]) -> bool:
            return self.node in states and states[self.node].get("status") == wanted

        self.api.wait("GpuAllocationState", so, namespace=self.namespace, what=f"a GpuAllocationState {wanted}", seconds=seconds)

    def inventory(self) -> dict[str, Doc]:
        """uid -> device."""
        found: dict[str, Doc] = self.state()["spec"]["allocatableDevices"]
        return found

    def cards(self) -> dict[str, Doc]:
        """Those that are given away whole: an administrator's VFs stand for theirs."""
        parents = {device["parentuid"] for device in self.inventory().values()}
        return {uid: device for uid, device in self.inventory().items() if device["type"] == "gpu" and uid not in parents}

    def wait_log(self, text: str) -> None:
        """Until the plugin has said it."""
        until(f"the word {text!r}", lambda: text in self.log(), seconds=60, look="the plugin's log")

    def until_not_ready(self, seconds: float) -> None:
        """Until the leader takes the node for one where nothing can be allocated."""
        until("a node that is not ready", lambda: self.leads("nodes", ready="false") == 1, seconds=int(seconds), look="the leader's log")

    # --- what is left over --------------------------------------------------------------------------------------------------------------

    def nothing_held(self) -> None:
        """No claim is allocated, reserved or protected by us, none is prepared, and no VFs are there that we made.

        Raises:
            ClusterError: something is.
        """

        def held() -> list[Any]:
            claims = self.api.list("ResourceClaim")
            return [claim["metadata"]["name"] for claim in claims if claim.get("status") or FINALIZER in finalizers(claim)]

        until("the end of every allocation", lambda: not held(), seconds=30, look="the controllers' logs")
        until("the end of what the leader has on its books", lambda: self.leads("claims_with_devices") == 0, seconds=30, look="its log")
        self.nothing_prepared()
        until("cards without VFs", lambda: self.metric("vfs") == 0, seconds=60, look="the plugin's log")

        def without_ours(states: dict[str, Doc]) -> bool:
            return not any(device.get("profile") for device in states[self.node]["spec"]["allocatableDevices"].values())

        self.api.wait("GpuAllocationState", without_ours, namespace=self.namespace, what="a state without VFs of ours")
        assert not self.api.list("PodSchedulingContext")


def finalizers(claim: Doc) -> list[str]:
    return claim["metadata"].get("finalizers") or []
