"""The image's entry points, each process 1 of its container."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "manifests" / "image"


@pytest.mark.parametrize(("script", "package"), [("gpu-node-plugin", "node"), ("gpu-controller", "controller")])
def test_a_signal_during_the_imports_is_heard(tmp_path: pathlib.Path, script: str, package: str) -> None:
    program = tmp_path / "nursery_apps" / package / "__main__.py"
    program.parent.mkdir(parents=True)
    for made in (program.parent, program.parent.parent):
        (made / "__init__.py").touch()
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('went on')\n")
    done = subprocess.run([sys.executable, SCRIPTS / script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=20)
    # Process 1 without a handler would go on; any other would end by the signal.
    assert (done.returncode, done.stdout) == (0, "")
