"""What is measured, and beside what: the daemon, the API server, a gRPC client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from dra.wire import dra_pb2
from tools.benches.server import Server, embedded, real

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
SETTINGS = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\nprobes: {port: 0}\nlogging: {level: warning}\n"
NODE = "bench"
"""With no kubelet of its own: a real one would wipe the slices of a driver that it does not know."""
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
CLAIMS = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
CDI_PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"
"""A tmpfs, as /var/run/cdi is on a node."""


class World:
    """One directory, one API server, at most one daemon at a time."""

    def __init__(self, directory: Path, cdi: Path, server: Server) -> None:
        self.directory, self.cdi, self.server = directory, cdi, server
        self.api = server.call
        self.kubelet = directory / "k"
        self.state = self.kubelet / "plugins" / "gpu.intel.com"
        self.endpoint = self.state / "dra.sock"
        self.registrar = self.kubelet / "plugins_registry" / "gpu.intel.com-reg.sock"
        self.registrar.parent.mkdir(parents=True)
        (directory / "settings.yaml").write_text(SETTINGS)
        with contextlib.suppress(urllib.error.HTTPError):  # there from the group before, on a real cluster
            self.api("POST", "/api/v1/nodes", {"metadata": {"name": NODE}, "status": {"nodeInfo": {"kubeletVersion": "v1.37.2"}}})
        self._daemon: subprocess.Popen[bytes] | None = None

    def settings(self, more: str) -> None:
        """What the next start finds in its settings file, besides what every one has."""
        (self.directory / "settings.yaml").write_text(SETTINGS + more)

    def start(self, *machine: str) -> float:
        """Start the daemon on a machine (flags); the time of the exec."""
        command = [str(Path(sys.executable).parent / "gpu-node-plugin"), *machine, "--kubeconfig", str(self.server.kubeconfig)]
        command += ["--kubelet-root", str(self.kubelet), "--cdi-root", str(self.cdi), "--node-name", NODE]
        command += ["--config", str(self.directory / "settings.yaml")]
        log = (self.directory / "log").open("ab")
        began = time.perf_counter()
        self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        return began

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(30)
            self._daemon = None

    def forget(self) -> None:
        """A node as new: no slices, and no claims, which a real API server keeps for the next group."""
        for item in self.slices():
            self.api("DELETE", f"/apis/resource.k8s.io/v1/resourceslices/{item['metadata']['name']}")
        for item in self.api("GET", CLAIMS)["items"]:
            self.api("DELETE", f"{CLAIMS}/{item['metadata']['name']}")

    def slices(self) -> list[Any]:
        found: list[Any] = self.api("GET", f"{SLICES}?fieldSelector=spec.nodeName%3D{NODE}")["items"]
        return found

    def device_names(self) -> list[str]:
        return [device["name"] for item in self.slices() for device in item["spec"].get("devices") or []]

    def until_published(self, count: int) -> float:
        """Until so many devices are in the API; when that was seen. Asks again and again: a watch would not be there yet at start."""
        while len(self.device_names()) != count:
            self._check()
            time.sleep(0.002)
        return time.perf_counter()

    def until_registered(self) -> float:
        """Until GetInfo is answered."""
        while True:
            self._check()
            with contextlib.suppress(grpc.RpcError), self.channel(self.registrar) as channel:
                channel.unary_unary("/pluginregistration.Registration/GetInfo")(b"", timeout=1)
                return time.perf_counter()
            time.sleep(0.002)

    def channel(self, path: Path) -> grpc.Channel:
        return grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])

    def memory(self) -> dict[str, float]:
        """Rss, Anonymous, Pss in MB (10^6 would flatter: these are MiB, as the yardsticks are)."""
        assert self._daemon is not None
        text = Path(f"/proc/{self._daemon.pid}/smaps_rollup").read_text()
        return {key: int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1]) / 1024 for key in ("Rss", "Anonymous", "Pss")}  # type: ignore[index]

    def cpu_seconds(self) -> float:
        assert self._daemon is not None
        fields = Path(f"/proc/{self._daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100  # utime, stime in clock ticks

    def simulate(self, **request: Any) -> Any:
        """One request to the fake machine; its answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.state / "simulator.sock"))
            control.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        assert "ok" in answer, answer
        return answer["ok"]

    def claim(self, number: int, device: str, *, driver: str = "") -> str:
        """An allocated claim, that wants its device bound to a driver; its UID."""
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.intel.com"}}
        made = self.api("POST", CLAIMS, {"metadata": {"name": f"c{number}"}, "spec": {"devices": {"requests": [request]}}})
        result = {"request": "gpu", "driver": "gpu.intel.com", "pool": NODE, "device": device}
        reserved = [{"apiGroup": "bench.example.com", "resource": "benches", "name": "b", "uid": "b"}]  # no pod that one could look for
        parameters = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": driver}
        config = [{"source": "FromClaim", "opaque": {"driver": "gpu.intel.com", "parameters": parameters}}] if driver else []
        made["status"] = {"allocation": {"devices": {"results": [result], "config": config}}, "reservedFor": reserved}
        uid: str = self.api("PUT", f"{CLAIMS}/c{number}/status", made)["metadata"]["uid"]
        return uid

    def _check(self) -> None:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            sys.exit(f"the daemon ended: {(self.directory / 'log').read_text()[-2000:]}")


class Kubelet:
    """One connection, as the kubelet keeps it; messages made beforehand, so that what is timed is the daemon."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._prepare = channel.unary_unary(f"{SERVICE}/NodePrepareResources")
        self._unprepare = channel.unary_unary(f"{SERVICE}/NodeUnprepareResources")

    @staticmethod
    def request(claims: list[tuple[str, str]]) -> bytes:
        """(uid, name) pairs; prepare and unprepare have the same form."""
        return dra_pb2.NodePrepareResourcesRequest(
            claims=[dra_pb2.Claim(namespace="default", uid=u, name=n) for u, n in claims]
        ).SerializeToString()

    def prepare(self, requests: list[bytes]) -> float:
        """All at once; milliseconds until the last answer."""
        took, answers = _timed(self._prepare, requests)
        for answer in answers:
            for outcome in dra_pb2.NodePrepareResourcesResponse.FromString(answer).claims.values():
                assert not outcome.error, outcome.error
        return took

    def unprepare(self, requests: list[bytes]) -> float:
        took, answers = _timed(self._unprepare, requests)
        for answer in answers:
            for outcome in dra_pb2.NodeUnprepareResourcesResponse.FromString(answer).claims.values():
                assert not outcome.error, outcome.error
        return took


def _timed(method: Any, requests: list[bytes]) -> tuple[float, list[bytes]]:
    began = time.perf_counter()
    if len(requests) == 1:
        answers = [method(requests[0], timeout=45)]
    else:
        answers = [future.result() for future in [method.future(request, timeout=45) for request in requests]]
    return 1000 * (time.perf_counter() - began), answers


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Below /tmp, because socket paths are short; the figures name the file system."""
    with tempfile.TemporaryDirectory(prefix="gb-", dir="/tmp") as name, tempfile.TemporaryDirectory(prefix="gb-", dir=CDI_PLACE) as cdi:
        directory = Path(name)
        given = os.environ.get("KUBECONFIG") if "BENCH_CLUSTER" in os.environ else None
        with embedded(directory) if given is None else real(Path(given), directory) as server:
            here = World(directory, Path(cdi), server)
            try:
                yield here
            finally:
                here.stop()
                here.forget()
