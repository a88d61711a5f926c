"""The newcomer's command keeps its word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fakes.plugin_process import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--story=gpus", "--story=vf", "--story=vf --machine=tools/machines/server-4x-b60.json"])
def test_the_demo_tells_its_story_to_the_end(options: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tools.demonstration", *options.split()], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "All of it happened" in run.stdout
    assert "\x1b" not in run.stdout, "plain in a pipe"
