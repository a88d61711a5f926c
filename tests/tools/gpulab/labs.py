"""Machines that are mounted for a test, each by a process of its own. Only inside `tools/lab test`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nursery_apps.edges.kernel_tree import RealKernelTree
from tests.fakes import machines
from tools.gpulab import namespaces

ROOT = Path(__file__).parents[3]


class Lab:
    """One machine that is served below `directory`, and how to act on it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.files = f"{directory}/machine"
        self.tree = RealKernelTree(*(f"{self.files}/{root}" for root in ("sys", "dev", "proc")))

    def simulate(self, **request: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(f"{self.directory}/sim.sock")
            control.sendall(json.dumps(request).encode() + b"\n")
            with control.makefile() as lines:
                answer = json.loads(lines.readline())
        assert "error" not in answer, answer
        return answer["ok"]


def skip_outside() -> None:
    """For fixtures: no lab, no test."""
    if namespaces.INSIDE not in os.environ:
        pytest.skip("needs tools/lab: run `tools/lab test`")


@contextlib.contextmanager
def _directory() -> Iterator[str]:
    skip_outside()
    with tempfile.TemporaryDirectory(dir=os.environ[namespaces.INSIDE]) as directory:
        yield directory


def _command(directory: str, machine: str) -> list[str]:
    return [sys.executable, "-m", "tools.gpulab.machine", directory, str(machines.FOLDER / f"{machine}.json")]


@contextlib.contextmanager
def serving(machine: str) -> Iterator[Lab]:
    """The machine is there for as long as the context."""
    with _directory() as directory, subprocess.Popen(_command(directory, machine), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("SYSFS_ROOT="), "the machine could not be served; its reason stands above"
            yield Lab(directory)
        finally:
            process.terminate()
            assert process.wait() == 0


def output_of(machine: str, *command: str) -> str:
    """What a command says on standard output that runs on the machine and sees its /proc."""
    with _directory() as directory:
        done = subprocess.run(
            ["unshare", "--mount", *_command(directory, machine), *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
    return done.stdout
