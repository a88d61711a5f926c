"""A daemon that was installed without what it needs says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nursery_apps.version import VERSION

ROOT = Path(__file__).parents[2]


def run(entry: str, *, without: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.modules[{without!r}] = None; sys.argv = ['x', '--version']\nfrom nursery_apps import entry_points\n"
    return subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(entry_points.{entry}())"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("entry", "program"), [("gpu_node_plugin", "gpu-node-plugin"), ("gpu_controller", "gpu-controller")])
def test_one_sentence_instead_of_a_traceback(entry: str, program: str) -> None:
    ended = run(entry, without="trio")
    assert ended.returncode == 2
    assert ended.stderr == f"{program}: trio is not installed; a daemon needs: pip install 'intel-gpu-dra[daemons]'\n"
    assert run(entry, without="nothing").stdout == f"{VERSION}\n"


def test_a_mistake_of_ours_is_not_blamed_on_the_installation() -> None:
    assert "Traceback" in run("gpu_node_plugin", without="nursery_apps.node.app").stderr
