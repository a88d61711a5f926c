"""One fake machine, served: its files, its events and its control socket.

    python -m tools.gpulab.machine DIRECTORY FILE[:MACHINE] [COMMAND...]

DIRECTORY gets `sys`, `dev`, `proc` (below one mount, `machine`) and `sim.sock`. With a command it is run there and its exit code is ours;
without one a line says that everything is in place, and SIGTERM or SIGINT ends it. For the namespaces of `tools.gpulab.namespaces` only:
anywhere else the events would be heard by the whole machine.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import pyfuse3
import trio

from nursery_apps.edges.simulator import serve_control
from tools.gpulab import namespaces
from tools.gpulab.entries import EntryKernel
from tools.gpulab.filesystem import MOST_CALLS, Files
from tools.gpulab.uevents import Broadcast

MACHINE: Final = "machine"
SOCKET: Final = "sim.sock"
ROOTS: Final = {"SYSFS_ROOT": f"{MACHINE}/sys", "DEV_ROOT": f"{MACHINE}/dev", "PROC_ROOT": f"{MACHINE}/proc", "SIM_SOCKET": SOCKET}
"""Environment variable -> place in the directory. The first two are what `gpu-node-plugin` takes its flags from."""
OVERLAID: Final = ("sys/kernel/osrelease", "sys/kernel/random/boot_id")
"""What the driver reads in /proc, which has no flag: a command sees the fake machine's at the usual place."""


def environment(directory: str) -> dict[str, str]:
    """What programs on the machine served in a directory are told."""
    return {variable: os.path.join(directory, place) for variable, place in ROOTS.items()}


def load(argument: str) -> EntryKernel:
    """Start the machine of FILE or FILE:MACHINE.

    Raises:
        OSError, ValueError: it cannot be read, or is no machine.
    """
    path, name = argument, None
    if not os.path.exists(path) and ":" in argument:
        path, _, name = argument.rpartition(":")
    document = msgspec.json.decode(pathlib.Path(path).read_bytes())
    kernel = EntryKernel.load(
        document, name, sleep=time.sleep, lock=threading.RLock(), make_lock=threading.RLock, boot_id=str(uuid.uuid4())
    )
    assert isinstance(kernel, EntryKernel)
    return kernel


async def serve(kernel: EntryKernel, directory: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve a machine in a directory until cancelled; one in a process.

    Raises:
        RuntimeError: it cannot be mounted.
        OSError: its events cannot be sent, or its control socket cannot be made.
    """
    mounted = os.path.join(directory, MACHINE)
    os.makedirs(mounted, exist_ok=True)
    with contextlib.closing(Broadcast(kernel)):
        # nodev is libfuse's own default: the numbers of the nodes may be those of a GPU that this machine really has.
        pyfuse3.init(Files(kernel), mounted, {*pyfuse3.default_options, "allow_other", "fsname=gpulab"})
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pyfuse3.main, 1, MOST_CALLS)
                await nursery.start(serve_control, kernel, os.path.join(directory, SOCKET))
                task_status.started()
                await trio.sleep_forever()
        finally:
            pyfuse3.close(unmount=True)


async def run(kernel: EntryKernel, directory: str, command: list[str]) -> int:
    """Serve the machine for as long as the command takes; without one, until a signal. The exit code."""
    code = 128 + signal.SIGTERM  # if that is what ends it
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, kernel, directory)
            told = environment(directory)
            if command:
                await _overlay_proc(directory)
                nursery.start_soon(_end_on_sigterm, signals, nursery.cancel_scope)
                code = (await trio.run_process(command, stdin=None, check=False, env={**os.environ, **told})).returncode
            else:
                print(" ".join(f"{variable}={path}" for variable, path in told.items()), flush=True)
                await anext(signals)
                code = 0
            nursery.cancel_scope.cancel()
    return code if code >= 0 else 128 - code


async def _overlay_proc(directory: str) -> None:
    for file in OVERLAID:
        await trio.run_process(["mount", "--bind", f"{directory}/{MACHINE}/proc/{file}", f"/proc/{file}"])


async def _end_on_sigterm(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """SIGINT is a terminal's: the command has it too, and does with it what it wants."""
    async for number in signals:
        if number == signal.SIGTERM:
            scope.cancel()


def main(arguments: list[str]) -> int:
    directory, machine, *command = arguments
    if namespaces.INSIDE not in os.environ:
        print("tools.gpulab.machine: not in a lab's namespaces: use tools/lab run", file=sys.stderr)
        return 2
    try:
        kernel = load(machine)
    except (OSError, ValueError) as error:
        print(f"tools/lab: {machine}: {error}", file=sys.stderr)
        return 2
    return trio.run(run, kernel, directory, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
