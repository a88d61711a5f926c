"""Debian's promtool, where `tools/promtool` has found or fetched one."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from tools.realcluster import programs


def run(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Skips where there is none: tests fetch nothing."""
    cached = programs.CACHE / "promtool" / "promtool"
    found = os.environ.get("PROMTOOL") or shutil.which("promtool") or (str(cached) if cached.exists() else None)
    if found is None:
        pytest.skip("there is no promtool: `tools/promtool --version` fetches one")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=120)
