"""From a pod's creation to its containers' start, on a real node with the driver as users install it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tests.e2e.api import Api
from tests.e2e.driver import Driver
from tests.e2e.pods import Namespace
from tools.benches.figures import Figure, percentile

PODS = 30
NAMESPACE = "bench"


def pod() -> list[Figure]:
    """Pods with a claim and without, in turn: the difference is what the claim costs."""
    api = Api(os.environ["KUBECONFIG"])
    with tempfile.TemporaryDirectory() as work:
        driver = Driver(api)
        driver.install(Path(work))
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    ns = Namespace(api, NAMESPACE)
    ns.template("gpu")
    took: dict[str, list[float]] = {"plain": [], "claim": []}
    for number in range(PODS + 1):
        for kind, times in took.items():
            name = f"{kind}-{number}"
            began = time.perf_counter()
            ns.pod(name, template="gpu" if kind == "claim" else None)
            ns.ready(name)
            times.append(1000 * (time.perf_counter() - began))
            ns.delete(name)
            driver.nothing_prepared()  # else the next pod waits for the kubelet, which takes its time to clean up
    return [
        Figure(f"pod.created_to_started.{kind}.{word}", percentile(times[1:], share), "ms", PODS, "tools/bench --cluster 1.37.2 pod")
        for kind, times in took.items()
        for word, share in (("p50", 0.5), ("p99", 0.99))
    ]
