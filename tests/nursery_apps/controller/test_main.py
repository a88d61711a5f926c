"""What an administrator sees who starts the controller before its time."""

from __future__ import annotations

import subprocess
import sys


def test_it_says_what_is_needed_instead_and_exits_with_2() -> None:
    run = subprocess.run([sys.executable, "-m", "nursery_apps.controller"], capture_output=True, text=True, timeout=30)
    assert run.returncode == 2
    assert "only gpu-node-plugin is needed" in run.stderr
