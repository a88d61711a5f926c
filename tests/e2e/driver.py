"""The driver as it was installed: its pods, its log, its fake machine, what it keeps on the node."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from typing import Any, Final

from tests.e2e.api import Api, Doc
from tests.e2e.pods import is_ready
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import until

ROOT: Final = pathlib.Path(__file__).parents[2]
NAMESPACE: Final = "intel-gpu-dra"
DAEMON_SET: Final = "node-plugin"
SETTINGS: Final = "node-plugin-settings"
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{DAEMON_SET}"
NODE: Final = "node1"
HEAD: Final = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"
MACHINE: Final = "server-8x-flex170"


class Driver:
    def __init__(self, api: Api, cluster: Cluster) -> None:
        self.api, self.cluster = api, cluster

    # --- installing ---------------------------------------------------------------------------------------------------------------------

    def install(self, work: pathlib.Path) -> None:
        """Image (built by tools/image) and manifests, as a user brings them: the overlay of the cluster's release, with fake machines."""
        self.cluster.load(ROOT / "build" / "image" / "intel-gpu-dra-simulated.tar")
        minor = ".".join(map(str, self.api.version))
        overlay = ROOT / "manifests" / "overlays" / f"kubernetes-{minor}"
        base = overlay if overlay.exists() else ROOT / "manifests" / "base"
        # kustomize wants paths from the overlay's own place.
        up = "../" * (len(work.resolve().parts) - 1)
        text = f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: ['{up}{str(base)[1:]}']\n"
        text += f"components: ['{up}{str(ROOT / 'manifests' / 'components' / 'simulate')[1:]}']\n"
        (work / "kustomization.yaml").write_text(text)
        self.cluster.kubectl("apply", "-k", str(work))
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

        self.api.wait("DaemonSet", done, namespace=NAMESPACE, what="the driver rolled out", seconds=seconds)

        def settled(pods: dict[str, Doc]) -> bool:
            # The DaemonSet's status lags: just after a delete it counts the pod that goes. A pod that wants a GPU meanwhile meets a kubelet
            # without the driver, and 1.33's comes back to it only after a minute and a half.
            return len(pods) == 1 and all(is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in pods.values())

        self.api.wait("Pod", settled, namespace=NAMESPACE, what="one pod of the driver, Ready", seconds=seconds)

    # --- the plugin's pod ---------------------------------------------------------------------------------------------------------------

    def pods(self) -> list[Doc]:
        return [pod for pod in self.api.list("Pod", NAMESPACE) if not pod["metadata"].get("deletionTimestamp")]

    @property
    def pod(self) -> str:
        return str(self.pods()[0]["metadata"]["name"])

    def log(self) -> str:
        return self.api.raw_text(f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod}/log")

    def run(self, *command: str) -> str:
        """A command in the plugin's container."""
        return self.cluster.kubectl("-n", NAMESPACE, "exec", self.pod, "--", *command).stdout

    def kill(self) -> None:
        """SIGKILL to the daemon, from the node; returns when the kubelet has started the container anew."""
        before = self.process()
        self.cluster.node.inside("kill", "-KILL", str(before))
        until("a new process of the driver", lambda: self.process() not in (None, before), seconds=60, look="kubectl describe pod")

    def process(self) -> int | None:
        """The daemon's number in the node; None while there is none."""
        status = self.pods()[0]["status"]["containerStatuses"][0]
        container = status["containerID"].removeprefix("containerd://")
        for line in self.cluster.ctr("tasks", "ls").stdout.splitlines():
            if line.startswith(container) and "RUNNING" in line:
                return int(line.split()[1])
        return None

    def wait_ready(self, seconds: float = 60) -> None:
        self.rolled_out(seconds)

    # --- the machine --------------------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> pathlib.Path:
        return self.cluster.site.root / "kubelet" / "plugins" / "gpu.intel.com"

    def machine(self, *words: str) -> Any:
        """Do something to the fake machine: `unplug`, `plug`, `wedge`, see tools/sim."""
        done = subprocess.run([ROOT / "tools" / "sim", self.state / "simulator.sock", *words], check=True, capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout.strip() else None

    # --- what it keeps ------------------------------------------------------------------------------------------------------------------

    def devices(self) -> dict[str, Doc]:
        """Device name -> as published; one level more in the older versions."""
        found: dict[str, Doc] = {}
        for item in self.api.list("ResourceSlice"):
            if item["spec"]["driver"] == "gpu.intel.com":
                for device in item["spec"].get("devices") or []:
                    found[device["name"]] = {"name": device["name"], **device.get("basic", device)}
        return found

    def wait_devices(self, true: Any, what: str, seconds: float = 30) -> dict[str, Doc]:
        def now(_: dict[str, Doc]) -> dict[str, Doc] | None:
            devices = self.devices()
            return devices if true(devices) else None

        found: dict[str, Doc] = self.api.wait("ResourceSlice", now, what=what, seconds=seconds)
        return found

    def cdi_files(self) -> list[str]:
        return self.cluster.node.inside("ls", "/run/cdi").stdout.split()

    def nothing_prepared(self) -> None:
        """The kubelet's unprepare may come after the claim's end: wait for it.

        Raises:
            ClusterError: something stays prepared.
        """
        until("the removal of every CDI file", lambda: not self.cdi_files(), seconds=30, look="the plugin's log")

    def discovered(self) -> list[Doc]:
        gpus: list[Doc] = json.loads(self.run("gpu-node-plugin", "discover", "--json"))["gpus"]
        return gpus

    def set(self, text: str) -> None:
        self.api.patch("ConfigMap", SETTINGS, {"data": {"settings.yaml": HEAD + text}}, NAMESPACE)

    def refresh_settings(self) -> None:
        """The kubelet looks at a ConfigMap it has mounted about once a minute, and whenever the pod changes."""
        self.api.patch("Pod", self.pod, {"metadata": {"annotations": {"changed": str(time.monotonic())}}}, NAMESPACE)
