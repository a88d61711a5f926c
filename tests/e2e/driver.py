"""The driver as it was installed: its pods, its log, its fake machine, what it keeps on the node."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

from kubernetes.client import ApiException

from tests.e2e.api import Api, Doc
from tests.e2e.pods import is_ready
from tools.realcluster.node import until

ROOT: Final = pathlib.Path(__file__).parents[2]
NAMESPACE: Final = "intel-gpu-dra"
DAEMON_SET: Final = "node-plugin"
SETTINGS: Final = "node-plugin-settings"
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{DAEMON_SET}"
KUBELET: Final = "/var/lib/kubelet"
HEAD: Final = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"
COMMAND_SECONDS: Final = 60


class Driver:
    namespace = NAMESPACE
    components: tuple[str, ...] = ("simulate",)
    """Of manifests/kustomize/components, to be installed with it."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.node = next(iter(api.ready_nodes()))
        """The one that gets the driver; others of the cluster get none."""

    # --- installing ---------------------------------------------------------------------------------------------------------------------

    def install(self, work: pathlib.Path) -> None:
        """The manifests as a user brings them: the overlay of the cluster's release, with fake machines."""
        overlay = ROOT / "manifests" / "kustomize" / "overlays" / f"kubernetes-{'.'.join(map(str, self.api.version))}"
        base = overlay if overlay.exists() else ROOT / "manifests" / "kustomize" / "base"
        # kustomize wants paths from the overlay's own place.
        up = "../" * (len(work.resolve().parts) - 1)
        text = f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: ['{up}{str(base)[1:]}']\n"
        wanted = [f"{up}{str(ROOT / 'manifests' / 'kustomize' / 'components' / name)[1:]}" for name in self.components]
        text += f"components: {json.dumps(wanted)}\n"
        selector = {"nodeSelector": {"kubernetes.io/hostname": self.node}}
        patch = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": DAEMON_SET}, "spec": {"template": {"spec": selector}}}
        text += f"patches: [{{patch: '{json.dumps(patch)}', target: {{kind: DaemonSet}}}}]\n"
        (work / "kustomization.yaml").write_text(text)
        self.kubectl("apply", "-k", str(work))
        self.rolled_out()

    def rolled_out(self, seconds: float = 90) -> None:
        def done(sets: dict[str, Doc]) -> bool:
            found = sets[DAEMON_SET]
            status = found.get("status", {})
            wanted = status.get("desiredNumberScheduled", 0)
            return (
                status.get("observedGeneration") == found["metadata"]["generation"]
                and wanted > 0
                and status.get("updatedNumberScheduled") == status.get("numberReady") == wanted
                and status.get("currentNumberScheduled") == wanted
            )

        self.api.wait("DaemonSet", done, namespace=self.namespace, what="the driver rolled out", seconds=seconds)

        def settled(found: dict[str, Doc]) -> bool:
            pods = [pod for pod in found.values() if component(pod) == DAEMON_SET]
            # The DaemonSet's status lags: just after a delete it counts the pod that goes. A pod that wants a GPU meanwhile meets a kubelet
            # without the driver, and 1.33's comes back to it only after a minute and a half.
            return len(pods) == 1 and all(is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in pods)

        self.api.wait("Pod", settled, namespace=self.namespace, what="one pod of the driver, Ready", seconds=seconds)

    def kubectl(self, *arguments: str) -> str:
        command = [os.environ.get("KUBECTL", "kubectl"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS).stdout

    # --- the plugin's pod ---------------------------------------------------------------------------------------------------------------

    def pods(self) -> list[Doc]:
        return self.pods_of(DAEMON_SET)

    def pods_of(self, wanted: str) -> list[Doc]:
        """Of a component, without those that go."""
        found = self.api.list("Pod", self.namespace)
        return [pod for pod in found if component(pod) == wanted and not pod["metadata"].get("deletionTimestamp")]

    @property
    def pod(self) -> str:
        return str(self.pods()[0]["metadata"]["name"])

    def log(self) -> str:
        return self.api.raw_text(f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}/log")

    def run(self, *command: str) -> str:
        """A command in the plugin's container."""
        return self.kubectl("-n", self.namespace, "exec", self.pod, "--", *command)

    def restarts(self) -> int:
        return sum(status["restartCount"] for pod in self.pods() for status in pod["status"].get("containerStatuses") or [])

    def renew(self) -> None:
        """Another pod of the driver in place of this one."""
        self.api.delete("Pod", self.pod, self.namespace)
        self.rolled_out()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """No pod of the driver on the node."""
        self._select({"nobody": "is-called-so"})
        try:
            gone = "no pod of the driver on the node"
            self.api.wait("Pod", lambda pods: DAEMON_SET not in map(component, pods.values()), namespace=self.namespace, what=gone)
            yield
        finally:
            self._select({"nobody": None})
        self.rolled_out()

    def _select(self, labels: Doc) -> None:
        self.api.patch("DaemonSet", DAEMON_SET, {"spec": {"template": {"spec": {"nodeSelector": labels}}}}, self.namespace)

    def roll(self) -> None:
        """Begin a rolling update."""
        annotations = {"rolled": str(time.monotonic())}
        self.api.patch("DaemonSet", DAEMON_SET, {"spec": {"template": {"metadata": {"annotations": annotations}}}}, self.namespace)

    def wait_ready(self, seconds: float = 60) -> None:
        self.rolled_out(seconds)

    # --- the machine --------------------------------------------------------------------------------------------------------------------

    def machine(self, *words: str) -> Any:
        """Do something to the fake machine: `unplug`, `plug`, `wedge`, see tools/sim."""
        said = self.run("sim", f"{KUBELET}/plugins/gpu.intel.com/simulator.sock", *words)
        return json.loads(said) if said.strip() else None

    # --- what it keeps ------------------------------------------------------------------------------------------------------------------

    def devices(self) -> dict[str, Doc]:
        """Device name -> as published; one level more in the older versions."""
        found: dict[str, Doc] = {}
        for item in self.slices():
            for device in item["spec"].get("devices") or []:
                found[device["name"]] = {"name": device["name"], **device.get("basic", device)}
        return found

    def slices(self) -> list[Doc]:
        return [item for item in self.api.list("ResourceSlice") if item["spec"]["driver"] == "gpu.intel.com"]

    def wait_devices(self, true: Any, what: str, seconds: float = 30) -> dict[str, Doc]:
        def now(_: dict[str, Doc]) -> dict[str, Doc] | None:
            devices = self.devices()
            return devices if true(devices) else None

        found: dict[str, Doc] = self.api.wait("ResourceSlice", now, what=what, seconds=seconds)
        return found

    def offered_again(self, name: str) -> None:
        """Until the device is published, and the scheduler knows: 1.31's does not look at slices that change, only (besides every five
        minutes) at a node whose labels do (EventsToRegister, plugins/dynamicresources)."""
        self.wait_devices(lambda devices: name in devices, f"{name} offered again")
        if self.api.version < (1, 32):
            self.api.patch("Node", self.node, {"metadata": {"labels": {"looked-at": str(time.monotonic_ns())}}})

    def cdi_files(self) -> list[str]:
        return self.run("python3", "-c", "import os; print(*os.listdir('/var/run/cdi'))").split()  # there is no ls in the image

    def nothing_prepared(self) -> None:
        """No CDI file, no record of a claim. The kubelet's unprepare may come after the claim's end: wait for it.

        Raises:
            ClusterError: something stays prepared.
        """
        until("the removal of every CDI file", lambda: not self.cdi_files(), seconds=30, look="the plugin's log")
        until("the end of every claim's record", lambda: self.metric("claims") == 0, seconds=30, look="the plugin's log")

    def metric(self, name: str, **labels: str) -> float | None:
        """Sum of a metric's series with these labels, None while the driver does not answer; the name goes without the prefix."""
        try:
            text = self.api.raw_text(f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:9176/proxy/metrics")
        except ApiException:
            return None
        return total(text, f"intel_gpu_dra_{name}", **labels)

    def discovered(self) -> list[Doc]:
        gpus: list[Doc] = json.loads(self.run("gpu-node-plugin", "discover", "--json"))["gpus"]
        return gpus

    def set(self, text: str) -> None:
        self.api.patch("ConfigMap", SETTINGS, {"data": {"settings.yaml": HEAD + text}}, self.namespace)

    def refresh_settings(self) -> None:
        """The kubelet looks at a ConfigMap it has mounted about once a minute, and whenever the pod changes."""
        self.api.patch("Pod", self.pod, {"metadata": {"annotations": {"changed": str(time.monotonic())}}}, self.namespace)


def component(pod: Doc) -> str:
    return str(pod["metadata"]["labels"].get("app.kubernetes.io/component"))


def total(exposition: str, name: str, **labels: str) -> float:
    """Sum of the series of a metric that have these labels."""
    found = 0.0
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{wanted}"' in series for key, wanted in labels.items()):
            found += float(value)
    return found
