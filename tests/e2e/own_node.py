"""The node of a cluster that tools/cluster made: what only somebody on the machine can do to the driver."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from inotify_simple import INotify, flags

from tests.e2e.api import Doc
from tests.e2e.driver import ROOT, Driver
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import until


class OwnNode:
    def __init__(self, driver: Driver, cluster: Cluster) -> None:
        self.driver, self.cluster = driver, cluster

    # --- the daemon ---------------------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL to the daemon, from the node; returns when the kubelet has started the container anew."""
        before = self.process()
        os.kill(self.process(), signal.SIGKILL)
        self._new_process(before)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The daemon gets no time, as one that hangs. Its liveness probe has patience for a minute."""
        process = self.process()
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # the kubelet was quicker
                os.kill(process, signal.SIGCONT)

    @contextlib.contextmanager
    def killed_by(self, change: flags) -> Iterator[None]:
        """SIGKILL to the daemon as soon as a name changes among the CDI files: in the middle of a prepare or an unprepare."""
        before = self.process()
        with INotify() as inotify:
            inotify.add_watch(f"/proc/{self.cluster.node.pid()}/root/run/cdi", change)
            yield
            assert inotify.read(timeout=60_000), f"no {change!r} among the CDI files within a minute"
            os.kill(before, signal.SIGKILL)
        self._new_process(before)

    def _new_process(self, before: int) -> None:
        until("a new process of the driver", lambda: self._find_process() not in (None, before), seconds=90, look="kubectl describe pod")

    def process(self) -> int:
        """The daemon's number, as this side counts."""
        found = self._find_process()
        assert found is not None, "the driver does not run"
        return found

    def _find_process(self) -> int | None:
        return self.process_of(self.driver.pods()[0])

    def process_of(self, pod: Doc) -> int | None:
        """Of a pod's first container, if it runs."""
        status = pod["status"]["containerStatuses"][0]
        container = status.get("containerID", "none").removeprefix("containerd://")
        for line in self.cluster.ctr("tasks", "ls").stdout.splitlines():
            if line.startswith(container) and "RUNNING" in line:
                return self.cluster.node.outside(int(line.split()[1]))
        return None

    @contextlib.contextmanager
    def running(self, module: str) -> Iterator[None]:
        """A program of ours in the node's namespaces, from its first line of output on. It ends with its input: nsenter passes no
        signals on."""
        command = [*self.cluster.node.enter(), sys.executable, "-m", module]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline(), f"{module} ended"
            yield

    # --- its machine and its files ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> pathlib.Path:
        return self.cluster.site.root / "kubelet" / "plugins" / "gpu.intel.com"

    def machine(self, *words: str) -> Any:
        """As `Driver.machine`, for when no API server answers."""
        done = subprocess.run([ROOT / "tools" / "sim", self.state / "simulator.sock", *words], check=True, capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def forget_machine(self) -> None:
        """The simulated machine starts anew with the driver: without what was done to it, and as another boot."""
        (self.state / "simulated-machine.log").unlink()
