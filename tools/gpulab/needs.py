"""What this machine must have for a lab: said in one sentence, before anything is begun."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from typing import Final

ROOT: Final = pathlib.Path(__file__).parents[2]
PINNED: Final = ROOT / "tools" / "requirements" / "lab.txt"
FUSE: Final = "/dev/fuse"
PACKAGES: Final = ("gcc", "libc6-dev", "libfuse3-dev", "pkg-config")
"""Debian's, to build pyfuse3; libfuse3's own library comes with its headers."""


class Lacking(Exception):
    """The machine cannot run a lab: one sentence that says why and what to do."""


def check(say: Callable[[str], None]) -> None:
    """Install what can be installed.

    Raises:
        Lacking: something cannot, or is refused here.
    """
    if sys.platform != "linux":
        raise Lacking("a lab needs Linux")
    if os.geteuid() != 0:
        raise Lacking("a lab needs root, for mounts, namespaces and uevents: use sudo")
    try:
        os.close(os.open(FUSE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Lacking(f"a lab needs FUSE, and {FUSE} cannot be opened ({error.strerror}); in a container, run it privileged") from None
    if refused := _refused_namespaces():
        raise Lacking(f"a lab needs namespaces, and the kernel refuses them ({refused}); in a container, run it privileged")
    if not _built():
        _build(say)


def _refused_namespaces() -> str:
    command = ["unshare", "--fork", "--pid", "--mount", "--net", "--mount-proc", "true"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()


def _built() -> bool:
    """Whether pyfuse3 is here and finds its library; asked of a process of its own, which sees what was installed a moment ago."""
    if importlib.util.find_spec("pyfuse3") is None:
        return False
    return subprocess.run([sys.executable, "-c", "import pyfuse3"], check=False, capture_output=True).returncode == 0


def _build(say: Callable[[str], None]) -> None:
    if shutil.which("gcc") is None or shutil.which("pkg-config") is None or _no_headers("fuse3"):
        _install((*PACKAGES, *_python_headers()), say)
    say(f"building {PINNED.read_text().splitlines()[1].split()[0]}, which takes half a minute ...")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    if subprocess.run([*command, "-r", str(PINNED)], check=False).returncode != 0:
        raise Lacking("pip could not build pyfuse3; see the lines above")


def _no_headers(library: str) -> bool:
    return subprocess.run(["pkg-config", "--exists", library], check=False).returncode != 0


def _python_headers() -> tuple[str, ...]:
    """Debian's own Python has them in a package; any other brings them."""
    if (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
        return ()
    return (f"python3.{sys.version_info.minor}-dev",)


def _install(packages: tuple[str, ...], say: Callable[[str], None]) -> None:
    if shutil.which("apt-get") is None:
        raise Lacking(f"install what Debian's packages {', '.join(packages)} have; it is not on this machine")
    say(f"installing {', '.join(packages)} ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for action in (["update"], ["install", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *action], check=True, stdout=subprocess.DEVNULL, env=environment)
    except subprocess.CalledProcessError:
        raise Lacking(f"apt-get could not install {', '.join(packages)}; install them by hand") from None
