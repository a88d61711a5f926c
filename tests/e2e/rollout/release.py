"""The driver as a Helm release, and what is left where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Final

import yaml
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.e2e.api import Api, Doc
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import ClassicNamespace
from tests.e2e.driver import ROOT, SETTINGS, Driver
from tests.e2e.pods import Namespace
from tools.realcluster import programs
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import ClusterError, until

CHART: Final = ROOT / "manifests" / "helm" / "intel-gpu-dra"
NAME: Final = "gpu"
HELM_SECONDS: Final = 420
"""More than the five minutes that `helm uninstall` waits for claims by itself."""
STATE: Final = ("kubelet/plugins/gpu.intel.com", "kubelet/plugins/gpu.resource.intel.com")
"""Below the cluster's directory: where the plugin keeps what it must remember."""
OF_THE_MACHINE: Final = ("simulated-machine.log", ".lock")
"""The fake machine outlives the driver, as a real one does; its directory is not taken away, then, nor the lock in it."""

AnyDriver = Driver | ClassicDriver


class HelmFailed(Exception):
    """With what helm said."""


def helm(*arguments: str, values: Doc | None = None, seconds: float = HELM_SECONDS) -> str:
    """Raises:
    HelmFailed: it ended with another code than 0.
    """
    program = os.environ.get("HELM") or str(programs.helm().directory / "helm")
    command = [program, *arguments, *(["--values", "-"] if values is not None else [])]
    text = json.dumps(values) if values is not None else None
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise HelmFailed(done.stderr)
    return done.stdout


class Release:
    """One installation by the chart, in the namespace where the kustomizations put it, so that all of Driver's questions can be asked."""

    def __init__(self, driver: AnyDriver) -> None:
        self.driver, self.api, self.namespace = driver, driver.api, driver.namespace
        self.values: Doc = {
            "simulate": {"enabled": True},
            "nodePlugin": {"nodeSelector": {"kubernetes.io/hostname": driver.node}},
        }

    def install(self, **values: Any) -> None:
        """`helm install --create-namespace --wait`."""
        self.values |= values
        helm("install", NAME, str(CHART), "-n", self.namespace, "--create-namespace", "--wait", "--timeout=3m", values=self.values)
        self.driver.wait_ready(90)

    def upgrade(self, *, wait: bool = True, **values: Any) -> None:
        self.values |= values
        helm("upgrade", NAME, str(CHART), "-n", self.namespace, *(["--wait", "--timeout=3m"] if wait else []), values=self.values)

    def rollback(self) -> None:
        """To the revision before."""
        helm("rollback", NAME, "-n", self.namespace, "--wait", "--timeout=3m")

    def uninstall(self) -> str:
        """Raises:
        HelmFailed: the hook left something.
        """
        with hurried(self.driver):
            return helm("uninstall", NAME, "-n", self.namespace, "--timeout=6m")

    def is_there(self) -> bool:
        return bool(json.loads(helm("list", "-n", self.namespace, "-o", "json", "--all")))

    def hook_log(self) -> str:
        """What `gpu-controller cleanup` said, of a hook that failed."""
        pods = [
            pod
            for pod in self.api.list("Pod", self.namespace)
            if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == "cleanup"
        ]
        return self.api.raw_text(f"/api/v1/namespaces/{self.namespace}/pods/{pods[-1]['metadata']['name']}/log")


@contextlib.contextmanager
def hurried(driver: AnyDriver) -> Iterator[None]:
    """Meanwhile the kubelet is made to bring the plugin the settings in which it is told to clean up; by itself it takes a minute."""
    over = threading.Event()

    def hurry() -> None:
        while not over.wait(1):
            found = driver.api.get("ConfigMap", SETTINGS, driver.namespace)
            if found is not None and "decommission: true" in found["data"]["settings.yaml"]:
                with contextlib.suppress(ApiException, DynamicApiError, IndexError):  # the pod may go
                    driver.refresh_settings()
                return

    thread = threading.Thread(target=hurry)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def chart(release: Release, **values: Any) -> list[Doc]:
    """What the chart would bring to this cluster, with these values."""
    version = ".".join(map(str, release.api.version))
    text = helm("template", NAME, str(CHART), "-n", release.namespace, "--kube-version", version, values=release.values | values)
    return [doc for doc in yaml.safe_load_all(text) if doc]


def may(driver: AnyDriver, account: str, verb: str, resource: str, namespace: str) -> bool:
    """What the API server says of an account of the driver's; `own` is its namespace, empty all of them."""
    where = ["-n", driver.namespace if namespace == "own" else namespace] if namespace else ["--all-namespaces"]
    who = f"--as=system:serviceaccount:{driver.namespace}:{account}"
    command = [os.environ.get("KUBECTL", "kubectl"), "auth", "can-i", verb, resource, *where, who]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.split()
    assert said and said[-1] in ("yes", "no"), said
    return said[-1] == "yes"


def is_classic(api: Api) -> bool:
    return api.version < (1, 31)


def ask(ns: Namespace, name: str, **more: Any) -> None:
    """A template for one GPU, in the words of the cluster's release."""
    if isinstance(ns, ClassicNamespace):
        ns.ask(name, **more)
    else:
        ns.template(name, **more)


# --- what is left -------------------------------------------------------------------------------------------------------------------------

OURS: Final = "intel-gpu-dra"
EVERYWHERE: Final = ("ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def left(driver: AnyDriver, cluster: Cluster) -> list[str]:
    """Objects and files of the driver that are still there, without the custom resource definitions, which outlive it."""
    api, found = driver.api, []
    for kind in (*EVERYWHERE, "ValidatingWebhookConfiguration"):
        if api.serves(kind):
            found += [f"{kind} {doc['metadata']['name']}" for doc in api.list(kind) if OURS in doc["metadata"]["name"]]
    classes = "ResourceClass" if is_classic(api) else "DeviceClass"
    found += [f"{classes} {doc['metadata']['name']}" for doc in api.list(classes) if "intel" in doc["metadata"]["name"]]
    if is_classic(api):
        found += [f"GpuAllocationState {doc['metadata']['name']}" for doc in api.list("GpuAllocationState")]
        found += [f"GpuClassParameters {doc['metadata']['name']}" for doc in api.list("GpuClassParameters")]
    else:
        found += [f"ResourceSlice {doc['metadata']['name']}" for doc in driver.slices()]
    for kind in ("DaemonSet", "Deployment", "Job", "Pod", "ServiceAccount", "ConfigMap", "Lease", "Role", "RoleBinding", "Service"):
        for doc in api.list(kind, driver.namespace):
            if doc["metadata"]["name"] not in ("default", "kube-root-ca.crt"):
                found.append(f"{kind} {doc['metadata']['name']}")
    site = cluster.site.root
    for name in STATE:
        for path in sorted((site / name).rglob("*")):
            if path.is_file() and path.name not in OF_THE_MACHINE:
                found.append(str(path.relative_to(site)))
    cdi = pathlib.Path(f"/proc/{cluster.node.pid()}/root/run/cdi")
    return found + [f"CDI file {path.name}" for path in cdi.glob("*")]


def nothing_left(driver: AnyDriver, cluster: Cluster) -> None:
    """Raises:
    ClusterError: something is, and stays.
    """
    try:
        until("the end of everything that was installed", lambda: not left(driver, cluster), seconds=60, look="")
    except ClusterError:
        raise ClusterError(f"still there: {', '.join(left(driver, cluster))}") from None
