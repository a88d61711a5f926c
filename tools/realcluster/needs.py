"""What the machine must have: said in one sentence, before anything is begun."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from tools.realcluster.programs import Programs

PACKAGES: Final = {
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
"""Program -> the Debian package that has it."""
DISK_GIB: Final = 6
"""A cold build of one release: 3 GiB of compiler cache, half of it programs, and what containers write."""


class Lacking(Exception):
    """The machine cannot run a cluster: one sentence that says why and what to do."""


def check(needed: tuple[Programs, ...], say: Callable[[str], None]) -> None:
    """Install what can be installed.

    Raises:
        Lacking: something cannot.
    """
    if sys.platform != "linux":
        raise Lacking("this cluster needs Linux")
    if os.geteuid() != 0:
        raise Lacking("this cluster needs root, for namespaces, mounts and cgroups: use sudo")
    if not any(pathlib.Path("/sys/fs/cgroup").glob("*")):
        raise Lacking("/sys/fs/cgroup is empty: a kubelet needs cgroups; in a container, run it with the host's")
    if refused := _refused_namespaces():
        raise Lacking(f"this cluster needs namespaces, and the kernel refuses them ({refused}); in a container, run it privileged")
    missing = [programs for programs in needed if not programs.cached]
    if missing:
        if shutil.which("go") is None:
            raise Lacking("building Kubernetes needs Go (1.26 or newer) in PATH: install it")
        if shutil.disk_usage("/var").free < DISK_GIB << 30:
            raise Lacking(f"a build needs {DISK_GIB} GiB of free space below /var")
    _install(say)


def _refused_namespaces() -> str:
    command = ["unshare", "--fork", "--pid", "--mount", "--net", "--mount-proc", "true"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()


def _install(say: Callable[[str], None]) -> None:
    wanted = sorted({package for program, package in PACKAGES.items() if not _found(program)})
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise Lacking(f"install the programs of Debian's packages {', '.join(wanted)}, they are not on this machine")
    say(f"installing {', '.join(wanted)} ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for action in (["update"], ["install", "--no-install-recommends", *wanted]):
            subprocess.run(["apt-get", "-qq", *action], check=True, stdout=subprocess.DEVNULL, env=environment)
    except subprocess.CalledProcessError:
        raise Lacking(f"apt-get could not install {', '.join(wanted)}; install them by hand") from None


def _found(program: str) -> bool:
    return (
        pathlib.Path(program).exists()
        if program.startswith("/")
        else shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is not None
    )
