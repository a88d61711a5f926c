"""The program as an administrator starts it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "apiVersion: gpu.intel.com/v1alpha1\nkind: ControllerConfiguration\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nursery_apps.controller", *arguments], capture_output=True, text=True, timeout=60)


def test_a_settings_file_is_checked_and_shown_without_a_cluster(tmp_path: Path) -> None:
    settings = tmp_path / "c.yaml"
    settings.write_text(HEAD + "allocation: {policy: packed}\n")
    shown = run("plan", "--config", str(settings))
    assert (shown.returncode, shown.stdout) == (0, 'apply allocation.policy: "none" -> "packed"\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "worker: 3\n", "did you mean `workers`?"),
        ("kind: Pod\n", "want gpu.intel.com/v1alpha1 ControllerConfiguration"),
        ("a: [", "c.yaml"),
    ],
)
def test_settings_that_cannot_be_used_end_it_with_one_line_and_2(tmp_path: Path, text: str, said: str) -> None:
    settings = tmp_path / "c.yaml"
    settings.write_text(text)
    ended = run("--config", str(settings))
    assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stderr.startswith("gpu-controller: ")


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And waited for, as an API server is: it may be mounted later."""
    settings = tmp_path / "c.yaml"
    settings.write_text(HEAD + "probes: {port: 0}\n")
    command = [sys.executable, "-m", "nursery_apps.controller", "--config", str(settings), "--kubeconfig", str(tmp_path / "none")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        said = next(line for line in program.stderr if "cannot" in line)
        program.terminate()
        assert str(tmp_path / "none") in said and program.wait(20) == 0


def test_a_port_that_somebody_has_is_named(tmp_path: Path) -> None:
    settings = tmp_path / "c.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings.write_text(HEAD + f"probes: {{port: {port}, address: 127.0.0.1}}\n")
        ended = run("--config", str(settings), "--kubeconfig", str(tmp_path / "none"))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert f"the probes cannot have port {port} of 127.0.0.1: Address already in use" in ended.stderr
