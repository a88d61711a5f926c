"""Figures of the controller on classic releases: how fast it decides, how many pods a second get their GPUs, what it needs of memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dra.classic import handle
from dra.classic.handle import Handle, Part
from dra.classic.inventory import AllocatableGpu, DeviceType, GpuAllocationState, StateSpec
from dra.classic.ledger import Ask, Ledger
from dra.classic.parameters import ClaimParameters, ClassParameters, Demand
from dra.classic.placement import Policy
from dra.kube.meta import ObjectMeta
from dra.names import ClaimUid
from tools.benches.figures import Figure, median, percentile
from tools.benches.server import ROOT

SMALL, LARGE = (100, 8), (5000, 8)
PODS = 700
POTENTIAL = 128
CONTEXTS = 200
SETTINGS = (
    "apiVersion: gpu.intel.com/v1alpha1\nkind: ControllerConfiguration\nprobes: {port: 0}\napiRate: {perSecond: 10000, burst: 10000}\n"
)
COMMAND = "tools/bench allocation"


def allocation() -> list[Figure]:
    return [*_decisions(), *_pods(), *_memory()]


def _decisions() -> list[Figure]:
    """One context with 128 potential nodes, in the ledger of 5 000 nodes with every second GPU taken; cold: no node was asked before."""
    nodes, gpus = LARGE
    ledger = Ledger(Policy(), on_better=lambda _node: None)
    devices = {gpu.uid: gpu for gpu in (_gpu(number) for number in range(1, gpus + 1))}
    names = [f"node-{number:04}" for number in range(nodes)]
    for name in names:
        ledger.set_state(
            name, GpuAllocationState(metadata=ObjectMeta(name=name), spec=StateSpec(allocatable_devices=devices), status="Ready")
        )
        ledger.set_alive(name, True)
        for uid in list(devices)[::2]:
            part = Part(uid=uid, memory=16384, millicores=1000)
            ledger.hold(ClaimUid(f"{name}-{uid}"), name, Handle(version=handle.VERSION, node=name, parts=(part,)), written=True)
    found = []
    for what, demand in (
        ("one_gpu", Demand(ClassParameters(), ClaimParameters())),
        ("shared", Demand(ClassParameters(shared=True), ClaimParameters(memory=4000, millicores=300))),
        ("vfs", Demand(ClassParameters(), ClaimParameters(type=DeviceType.VF, memory=3500, count=3))),
    ):
        cold, warm = [], []
        for number in range(CONTEXTS):
            asked = [names[(number * 37 + at) % nodes] for at in range(POTENTIAL)]
            asks = (Ask(ClaimUid(f"{what}-{number}"), demand),)
            for name in asked:  # what a node's last change did to what is remembered of it
                ledger.release(ClaimUid(f"{name}-{next(iter(devices))}"))
            for times in (cold, warm):
                began = time.perf_counter()
                ledger.verdicts(asked, asks)
                times.append(1000 * (time.perf_counter() - began))
        found += [
            Figure(f"decide.{what}.128_nodes.cold.p50", median(cold), "ms", CONTEXTS, COMMAND, 5.0),
            Figure(f"decide.{what}.128_nodes.cold.p99", percentile(cold, 0.99), "ms", CONTEXTS, COMMAND, 5.0),
            Figure(f"decide.{what}.128_nodes.warm.p50", median(warm), "ms", CONTEXTS, COMMAND),
        ]
    return found


def _pods() -> list[Figure]:
    """Pods with one GPU each, from nothing to a node for every one; scheduler, API server and controller share this machine."""
    with _cluster(*SMALL) as cluster, controller(cluster.kubeconfig) as ours:
        ours.until_allocating()
        cluster.ask("pods 50")
        before = ours.cpu_seconds()
        took = cluster.ask(f"pods {PODS}")
        used = ours.cpu_seconds() - before
    command = f"{COMMAND} ({SMALL[0]} nodes)"
    return [
        Figure("pods.per_second", PODS / took, "pods/s", 1, command),
        Figure("pods.controller_cpu", 1000 * used / PODS, "ms/pod", 1, command),
    ]


def _memory() -> list[Figure]:
    """Of the controller with every GPU held by a claim, and how long it takes from exec until it may decide."""
    found = []
    for nodes, gpus in (SMALL, LARGE):
        with _cluster(nodes, gpus) as cluster:
            claims = int(cluster.ask("fill"))
            with controller(cluster.kubeconfig) as ours:
                began = time.perf_counter()
                ours.until_allocating(120)
                took = time.perf_counter() - began
                rss = ours.rss_mib()
        found += [
            Figure(f"memory.controller.{claims}_claims", rss, "MiB", 1, COMMAND, 500.0 if nodes == LARGE[0] else None),
            Figure(f"start.controller.{claims}_claims", took, "s", 1, COMMAND),
        ]
    return found


def _gpu(number: int) -> AllocatableGpu:
    uid, kind = f"0000:{number:02x}:00.0-0x56c0", DeviceType.GPU
    fields: dict[str, Any] = {"memory": 16384, "millicores": 1000, "model": "0x56c0", "parentuid": "", "vfindex": 0, "ecc": False}
    return AllocatableGpu(uid=uid, type=kind, maxvfs=31, quotas="prelim", name="Flex 170", **fields)


class _Cluster:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.kubeconfig: str = self._answer()["kubeconfig"]

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def _cluster(nodes: int, gpus: int) -> Iterator[_Cluster]:
    command = [sys.executable, "-m", "tools.benches.classic_process", str(nodes), str(gpus)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _Cluster(process)
        process.terminate()


class Controller:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def until_allocating(self, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while ": allocating" not in self._log.read_text():
            assert self._process.poll() is None and time.monotonic() < until, self._log.read_text()
            time.sleep(0.005)  # a process of its own: there is no event to wait for

    def warnings(self) -> int:
        """Lines of its log that are warnings or worse."""
        return sum(" WARNING " in line or " ERROR " in line for line in self._log.read_text().splitlines())

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.contextmanager
def controller(kubeconfig: str) -> Iterator[Controller]:
    with tempfile.TemporaryDirectory(prefix="gc-", dir="/tmp") as name:
        settings, log = Path(name) / "controller.yaml", Path(name) / "log"
        settings.write_text(SETTINGS)
        flags = ["--kubeconfig", kubeconfig, "--config", str(settings), "--pod-namespace", "intel-gpu-resource-driver"]
        with (
            log.open("wb") as out,
            subprocess.Popen([str(Path(sys.executable).parent / "gpu-controller"), *flags], cwd=name, stdout=out, stderr=out) as process,
        ):
            try:
                yield Controller(process, log)
            finally:
                process.terminate()
                process.wait(20)
