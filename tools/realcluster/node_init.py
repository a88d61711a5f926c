"""The node's first process: process 1 of the namespaces, parent of every program, and the one that orphans fall to.

    unshare --fork --pid --mount --net --mount-proc python -m tools.realcluster.node_init DIRECTORY

When it dies the kernel ends every process below it, containers too, and with the last of them go the mounts and the network: that is how a
node is taken down or loses its power. It takes orders on a socket of the directory, one JSON object a line:

    {"start": "etcd", "argv": [...], "env": {...}}      output goes to log/etcd.log
    {"signal": "etcd", "number": 9}                     to the process and what it started in its session
    {"list": true}                                      -> {"etcd": PID or null, ...}

Imports only the standard library: it is there before anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
from typing import Any

from tools.realcluster import site as places


def main(directory: str) -> None:
    site = places.Site(pathlib.Path(directory))
    lay_mounts(site)
    lay_network()
    Init(site).serve()


def lay_mounts(site: places.Site) -> None:
    """Usual paths over the site's directories; /run as empty as after a boot. Seen by nobody outside."""
    run("mount", "--make-rprivate", "/")
    run("mount", "--make-rshared", "/")  # what containers mount for each other reaches the kubelet's paths
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in ("/run/cdi", "/run/netns", "/run/lock"):
        os.makedirs(path)
    for name, path in places.BOUND.items():
        # A mount needs a place; `down` removes those that were not there.
        os.makedirs(path, exist_ok=True)
        run("mount", "--bind", str(site.root / name), path)


def lay_network() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{places.NODE_IP}/32", "dev", "lo")
    run("ip", "route", "add", places.SERVICE_RANGE, "dev", "lo")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for chain in ("PREROUTING", "OUTPUT"):  # in place of kube-proxy: one service is enough
        match = f"-d {places.SERVICE_IP}/32 -p tcp --dport 443".split()
        run("iptables", "-t", "nat", "-A", chain, *match, "-j", "DNAT", "--to-destination", f"{places.NODE_IP}:{places.API_PORT}")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Init:
    def __init__(self, site: places.Site) -> None:
        self._site = site
        self._pids: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        path = self._site.control_socket
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        self._selector.register(wake_read, selectors.EVENT_READ)
        self._selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is listening:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        self._converse(connection)
                else:
                    os.read(wake_read, 4096)
            self._reap()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(5)  # seconds; who asks has its line ready
        with connection.makefile("rw") as lines:
            for line in lines:
                try:
                    answer: Any = self._answer(json.loads(line))
                except Exception as error:  # noqa: BLE001  whatever is wrong with an order, process 1 must live
                    answer = {"error": f"{type(error).__name__}: {error}"}
                lines.write(json.dumps(answer) + "\n")
                lines.flush()

    def _answer(self, order: dict[str, Any]) -> Any:
        self._reap()
        if name := order.get("start"):
            if name in self._pids:
                raise ValueError(f"{name} runs already")
            with open(self._site.log(name), "ab") as log:
                environment = {"PATH": os.environ["PATH"], "HOME": "/root", **order.get("env", {})}
                started = subprocess.Popen(
                    order["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            started.returncode = 0  # reaped here, with all other children, and not by subprocess
            self._pids[name] = started.pid
        elif name := order.get("signal"):
            if name not in self._pids:
                raise ValueError(f"{name} does not run")
            os.killpg(self._pids[name], order["number"])
        return dict(self._pids)

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._pids = {name: running for name, running in self._pids.items() if running != pid}


if __name__ == "__main__":
    main(sys.argv[1])
