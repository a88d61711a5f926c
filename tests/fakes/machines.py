"""The machine documents of the tree, read once, and what is in them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from dra.sim_kernel.kernel import SimKernel

FOLDER = Path(__file__).parents[2] / "tools" / "machines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@functools.cache
def document(name: str) -> Any:
    """The document; shared, never to be changed."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def kernel(name: str, **settings: Any) -> SimKernel:
    return SimKernel.load(document(name), **settings)


def expected(name: str) -> list[dict[str, Any]]:
    """The GPUs a scan of the machine must find."""
    gpus: list[dict[str, Any]] = document(name)["machine"][name]["expected"]["gpus"]
    return gpus


class Events:
    """Collects uevents of a SimKernel."""

    def __init__(self, kernel: SimKernel) -> None:
        self.properties: list[dict[str, str]] = []
        self.overflows: list[str] = []
        kernel.subscribe(lambda _action, _subsystem, _path, properties: self.properties.append(properties), self.overflows.append)

    @property
    def short(self) -> list[tuple[str, str, str]]:
        """(action, subsystem, last component of the path)"""
        return [(event["ACTION"], event["SUBSYSTEM"], event["DEVPATH"].rpartition("/")[2]) for event in self.properties]
