"""The daemons as `pip install` puts them on PATH, where what they need may be missing: `kubectl intel-gpu` is installed without it."""

from __future__ import annotations

import importlib
import sys

MISUSED = 2


def gpu_node_plugin() -> int:
    return _main("gpu-node-plugin", "nursery_apps.node.__main__")


def gpu_controller() -> int:
    return _main("gpu-controller", "nursery_apps.controller.__main__")


def _main(program: str, module: str) -> int:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in ("dra", "nursery_apps"):
            raise
        print(f"{program}: {missing.name} is not installed; a daemon needs: pip install 'intel-gpu-dra[daemons]'", file=sys.stderr)
        return MISUSED
    code: int = found.main()
    return code
