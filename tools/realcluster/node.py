"""The node as the outside sees it: making its namespaces, sending orders to its first process, running commands inside, ending it."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tools.realcluster.site import Site

ROOT: Final = pathlib.Path(__file__).parent.parent.parent
INIT: Final = "tools.realcluster.node_init"
NAMESPACES: Final = ("--pid", "--mount", "--net")
CLONE_NEWNET: Final = 0x40000000
"""sched.h"""
POLL_SECONDS: Final = 0.05
"""Between looks at what has no event to wait for: another program's readiness."""
INSIDE_SECONDS: Final = 120
"""For one command in the node; the longest imports an image of 200 MB."""


class ClusterError(Exception):
    """Something about the cluster is not as it should be; says what, and where to look."""


def until(what: str, true: Callable[[], Any], *, seconds: float, look: str) -> Any:
    """The first true value of `true()`.

    Raises:
        ClusterError: not within so many seconds; `look` says where the reason may stand.
    """
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s; look at {look}")
        time.sleep(POLL_SECONDS)
    return value


class Node:
    def __init__(self, site: Site) -> None:
        self.site = site

    # --- life ---------------------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the first process and wait until it takes orders."""
        self.site.control_socket.unlink(missing_ok=True)
        with open(self.site.log("init"), "ab") as log:
            subprocess.run(  # it outlives this process, and is nobody's to wait for
                ["setsid", "--fork", "unshare", "--fork", *NAMESPACES, "--mount-proc", sys.executable, "-m", INIT, str(self.site.root)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
            )  # fmt: skip
        until("the node's first process", self.site.control_socket.exists, seconds=20, look=str(self.site.log("init")))

    def pid(self) -> int | None:
        """Of the first process, as this side counts. Found by its arguments, so that an `up` that was killed leaves nothing unknown."""
        wanted = [INIT.encode(), str(self.site.root).encode(), b""]
        for pid, arguments in _processes():
            if arguments[-3:] == wanted and b"unshare" not in arguments:
                return pid
        return None

    def others(self) -> list[str]:
        """Directories of other clusters that run on this machine."""
        found = {arguments[-2].decode() for _, arguments in _processes() if arguments[-3:-2] == [INIT.encode()]}
        return sorted(found - {str(self.site.root)})

    def outside(self, pid: int) -> int | None:
        """Of a container's process, which the node counts as `pid`: the number that this side counts."""
        for directory in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                counted = re.search(r"^NSpid:\s+\d+\s+(\d+)", (directory / "status").read_text(), re.M)
                ours = self.site.cgroup in (directory / "cgroup").read_text()
            except OSError:
                continue
            if ours and counted and int(counted.group(1)) == pid:
                return int(directory.name)
        return None

    def end(self) -> None:
        """End the first process and with it every other one."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until("the end of the node's processes", lambda: not pathlib.Path(f"/proc/{pid}").exists(), seconds=60, look=f"/proc/{pid}")
        for group in self._cgroups():
            until(f"the emptying of {group}", lambda group=group: _remove_groups(group), seconds=20, look=f"{group}/cgroup.procs")

    def _cgroups(self) -> list[pathlib.Path]:
        base = pathlib.Path("/sys/fs/cgroup")
        return [group for group in (base / self.site.cgroup, *base.glob(f"*/{self.site.cgroup}")) if group.exists()]

    def make_cgroups(self) -> None:
        """The kubelet wants the group that it shall make its own in to exist, in every hierarchy."""
        base = pathlib.Path("/sys/fs/cgroup")
        if (base / "cgroup.controllers").exists():
            (base / self.site.cgroup).mkdir(exist_ok=True)
            return
        for hierarchy in base.iterdir():
            if hierarchy.is_symlink() or not hierarchy.is_dir():
                continue
            group = hierarchy / self.site.cgroup
            group.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1, and then nothing can run in it
                if (group / file).exists():
                    (group / file).write_text((hierarchy / file).read_text())

    # --- orders -------------------------------------------------------------------------------------------------------------------------

    def order(self, **order: Any) -> dict[str, int]:
        """Give the first process an order; returns what runs, by name, with pids of its own counting.

        Raises:
            ClusterError: there is no node, or it refuses.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.site.control_socket))
                with connection.makefile("rw") as lines:
                    lines.write(json.dumps(order) + "\n")
                    lines.flush()
                    answer = json.loads(lines.readline())
        except OSError as error:
            raise ClusterError(f"no node answers at {self.site.control_socket} ({error.strerror}); tools/cluster up starts one") from None
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer

    def enter(self, *namespaces: str) -> list[str]:
        """What to put before a command so that it runs inside.

        Raises:
            ClusterError: there is no node.
        """
        pid = self.pid()
        if pid is None:
            raise ClusterError(f"no cluster runs in {self.site.root}; tools/cluster up starts one")
        return ["nsenter", "--target", str(pid), *(namespaces or NAMESPACES)]

    def join_network(self) -> None:
        """This thread's sockets from now on are in the node's network; after a reboot that is another one."""
        with open(f"/proc/{self.pid()}/ns/net") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):  # os.setns comes with Python 3.12
                raise ClusterError(f"cannot enter the node's network: {os.strerror(ctypes.get_errno())}")

    def inside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the node; output is captured."""
        return subprocess.run([*self.enter(), *command], check=check, capture_output=True, text=True, timeout=INSIDE_SECONDS)


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            yield int(directory.name), (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue


def _remove_groups(group: pathlib.Path) -> bool:
    """Children first. False while one still has a process that is ending."""
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            return False
    return True
