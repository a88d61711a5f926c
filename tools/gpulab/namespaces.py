"""Mounts, network and processes of a lab's own.

    unshare ... python -m tools.gpulab.namespaces LEASH COMMAND...

is the first process inside. When it ends the kernel ends every other one, and with the last of them go mounts and network: nothing is to be
taken away. It ends with the command, or when nobody holds the other end of the leash any more, however its parent died.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Final

ROOT: Final = pathlib.Path(__file__).parents[2]
DIRECTORY: Final = ROOT / "build" / "lab"
"""Empty, but for those inside: each lab has a file system in memory there. Short, because a socket's path has to be."""
INSIDE: Final = "GPU_LAB"
"""Environment variable that names the directory to those inside."""
GRACE_SECONDS: Final = 10.0
"""For a command that is told to end: a daemon's own grace is a few seconds."""
_UNSHARE: Final = ("unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--mount-proc")


def run(command: list[str], began: Callable[[int], None] = lambda _pid: None) -> int:
    """Run a command in namespaces of its own; its exit code. `began` gets the id of a process that is in them too."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    held_inside, held_here = os.pipe()
    environment = os.environ | {INSIDE: str(DIRECTORY), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    inside = [*_UNSHARE, sys.executable, "-m", __name__, str(held_inside), *command]
    with os.fdopen(held_here, "wb") as leash, subprocess.Popen(inside, pass_fds=[held_inside], env=environment) as process:
        os.close(held_inside)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the command as well, which knows better
        signal.signal(signal.SIGTERM, lambda *_: leash.close())
        began(process.pid)
        code = process.wait()
    return code if code >= 0 else 128 - code


def main(leash: int, command: list[str]) -> int:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "gpulab", str(DIRECTORY)], check=True)
    _raise_loopback()
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ended = os.pidfd_open(process.pid)
        if leash in select.select([ended, leash], [], [])[0]:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
        code = process.wait()
    return code if code >= 0 else 128 - code


def _raise_loopback() -> None:
    siocsifflags, iff_up = 0x8914, 1  # include/uapi/linux/sockios.h, if.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
