"""The image's entry point, which is process 1 of its container."""

from __future__ import annotations

import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "manifests" / "image" / "gpu-node-plugin"


def test_a_signal_during_the_imports_is_heard(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "nursery_apps" / "node" / "__main__.py"
    program.parent.mkdir(parents=True)
    for package in (program.parent, program.parent.parent):
        (package / "__init__.py").touch()
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('went on')\n")
    done = subprocess.run([sys.executable, SCRIPT], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=20)
    # Process 1 without a handler would go on; any other would end by the signal.
    assert (done.returncode, done.stdout) == (0, "")
