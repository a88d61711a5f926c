"""What the comment at the head of an example for structured DRA says it needs, for whoever runs it.

# What it shows, in sentences.
#
# Kubernetes: 1.34+                                               or 1.32-1.33, or 1.31: minors it is for
# Needs: gate DRAConsumableCapacity, on by default from 1.36      as many as it takes
# Needs: settings manifests/examples/settings/shares.yaml         of the node plugin, the path from the repository's root
# Needs: module vfio-pci                                          of the nodes' kernel
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_KUBERNETES = re.compile(r"1\.(\d+)(?:(\+)|-1\.(\d+))?")
_GATE = re.compile(r"gate (\w+), on by default from 1\.(\d+)")


class Header(NamedTuple):
    about: str
    oldest: int
    """Minor."""
    newest: int | None
    """Minor; None for every later one."""
    gates: dict[str, int]
    """Feature gate -> minor from which it is on by default. It is needed on every component."""
    settings: str | None
    modules: list[str]

    def runs_on(self, minor: int) -> bool:
        return self.oldest <= minor and (self.newest is None or minor <= self.newest)

    def gates_to_switch_on(self, minor: int) -> dict[str, bool]:
        return {gate: True for gate, default in self.gates.items() if minor < default}


def read(path: Path) -> Header:
    """
    Raises:
        ValueError: the head is not of that form; says which line.
    """
    lines = [line[1:].strip() for line in path.read_text().partition("\n---")[0].splitlines() if line.startswith("#")]
    if "" not in lines or not lines[0]:
        raise ValueError(f"{path}: begins with a sentence, then a line with # alone, then what it needs")
    split = lines.index("")
    oldest, newest, gates, settings, modules = None, None, {}, None, []
    for line in lines[split + 1 :]:
        key, _, value = line.partition(": ")
        kind, _, rest = value.partition(" ")
        if key == "Kubernetes" and oldest is None and (match := _KUBERNETES.fullmatch(value)):
            oldest, newest = int(match[1]), None if match[2] else int(match[3] or match[1])
        elif key == "Needs" and (match := _GATE.fullmatch(value)):
            gates[match[1]] = int(match[2])
        elif key == "Needs" and kind == "settings" and settings is None:
            settings = rest
        elif key == "Needs" and kind == "module":
            modules.append(rest)
        else:
            raise ValueError(f"{path}: cannot read {line!r}")
    if oldest is None:
        raise ValueError(f"{path}: says of no Kubernetes")
    return Header(" ".join(lines[:split]), oldest, newest, gates, settings, modules)
