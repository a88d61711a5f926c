"""Pods a second on a real classic cluster, with nodes that exist only in the API and the controller as it is shipped."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dra import election
from dra.classic.names import CLASSIC_DRIVER_NAME, GROUP_VERSION, HEARTBEAT_LABEL, heartbeat_name
from tools.benches.allocation import controller
from tools.benches.classic_process import LASTING_SECONDS, NAMESPACE, gpu
from tools.benches.figures import Figure
from tools.benches.server import ROOT, Server, real

NODES, GPUS = 100, 8
ROUNDS = (100, 700)
"""Together they take every GPU."""
CLIENTS = 8
CLAIMS = "/apis/resource.k8s.io/v1alpha2/namespaces/default/resourceclaims"
PODS = "/api/v1/namespaces/default/pods"


def classic_pods() -> list[Figure]:
    kubeconfig = Path(os.environ["KUBECONFIG"])
    found = []
    with tempfile.TemporaryDirectory(prefix="gp-", dir="/tmp") as directory, real(kubeconfig, Path(directory)) as server:
        _prepare(server)
        with controller(str(kubeconfig)) as ours:
            ours.until_allocating(60)
            first = 0
            for count in ROUNDS:
                before = ours.cpu_seconds()
                took = _run(server, first, count)
                used = 1000 * (ours.cpu_seconds() - before) / count
                first += count
                command = "tools/bench --cluster VERSION pods"
                found.append(Figure(f"pods.{count}.per_second", count / took, "pods/s", 1, command))
                found.append(Figure(f"pods.{count}.controller_cpu", used, "ms/pod", 1, command))
            found.append(Figure("pods.controller_rss", ours.rss_mib(), "MiB", 1, command))
            found.append(Figure("pods.warnings_logged", float(ours.warnings()), "lines", 1, command))
    return found


def _prepare(server: Server) -> None:
    kubectl = os.environ["KUBECTL"]
    crds = [argument for path in sorted((ROOT / "manifests" / "crds").glob("gpu*.yaml")) for argument in ("-f", str(path))]
    subprocess.run([kubectl, "apply", *crds], check=True, capture_output=True)
    subprocess.run([kubectl, "wait", "--for=condition=Established", "crd", "--all"], check=True, capture_output=True)
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    of_class = {"metadata": {"name": "intel-gpu"}, "driverName": CLASSIC_DRIVER_NAME}
    server.call("POST", "/apis/resource.k8s.io/v1alpha2/resourceclasses", of_class)
    devices = {one["uid"]: one for one in (gpu(number) for number in range(1, GPUS + 1))}
    nodes = server.call("GET", "/api/v1/nodes?labelSelector=kubelet%3Dnone")["items"]
    assert len(nodes) == NODES, f"{len(nodes)} nodes without a kubelet"
    for node in nodes:
        name = node["metadata"]["name"]
        state = {"apiVersion": GROUP_VERSION, "kind": "GpuAllocationState", "metadata": {"name": name}, "status": "Ready"}
        state["spec"] = {"allocatableDevices": devices}
        server.call("POST", f"/apis/{GROUP_VERSION}/namespaces/{NAMESPACE}/gpuallocationstates", state)
        spec = {"holderIdentity": name, "leaseDurationSeconds": LASTING_SECONDS, "renewTime": election.timestamp(time.time())}
        lease = {"metadata": {"name": heartbeat_name(name), "labels": {HEARTBEAT_LABEL: "true"}}, "spec": spec}
        server.call("POST", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases", lease)


def _run(server: Server, first: int, count: int) -> float:
    """Seconds from the first pod's creation until every pod has a node. Claims are there before."""
    names = [f"p{number}" for number in range(first, first + count)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda name: server.call("POST", CLAIMS, _claim(name)), names))
        began = time.perf_counter()
        created = clients.map(lambda name: server.call("POST", PODS, _pod(name)), names)
        list(created)
        while server.call("GET", f"{PODS}?fieldSelector=spec.nodeName%3D&limit=1")["items"]:
            time.sleep(0.05)
    return time.perf_counter() - began


def _claim(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"resourceClassName": "intel-gpu", "allocationMode": "WaitForFirstConsumer"}}


def _pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "resources": {"claims": [{"name": "gpu"}]}}
    spec = {
        "containers": [container],
        "nodeSelector": {"kubelet": "none"},
        "tolerations": [{"operator": "Exists"}],
        "resourceClaims": [{"name": "gpu", "source": {"resourceClaimName": name}}],
    }
    return {"metadata": {"name": name}, "spec": spec}
