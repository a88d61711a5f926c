"""What a driver counts of its card: errors, energy, idle time. It keeps the counts in its memory, so they begin anew when it is bound."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dra.sim_kernel import tree
from dra.sim_kernel.drivers import Function
from dra.sim_kernel.tree import Directory, File


def cards(function: Function) -> Iterator[tuple[str, Directory]]:
    """Its DRM card by name, if it has one."""
    minors = function.directory.directory("drm")
    for name, card in minors.entries.items() if minors is not None else ():
        if isinstance(card, Directory) and re.fullmatch(r"card\d+", name):
            yield name, card


def gts(function: Function) -> Iterator[tuple[str, Directory]]:
    """Its GTs by name: xe's below its tiles, i915's below its card."""
    tiles = [below for name, below in function.directory.entries.items() if re.fullmatch(r"tile\d+", name)]
    for holder in [*tiles, *(card.directory("gt") for _, card in cards(function))]:
        for name, gt in holder.entries.items() if isinstance(holder, Directory) else ():
            if isinstance(gt, Directory) and re.fullmatch(r"gt\d+", name):
                yield name, gt


def errors(function: Function) -> dict[str, File]:
    """By name, `gt0/fatal_guc`: prelim i915's."""
    holders = [("", card) for _, card in cards(function)] + [(f"{name}/", gt) for name, gt in gts(function)]
    return {f"{prefix}{name}": file for prefix, holder in holders for name, file in files(holder.directory("error_counter"))}


def energy(function: Function) -> list[File]:
    """In microjoules."""
    return [file for _, hwmon in hwmons(function) for name, file in files(hwmon) if re.fullmatch(r"energy\d+_input", name)]


def idle(function: Function, gt: str | None = None) -> list[File]:
    """In milliseconds, of all GTs or of one."""
    walked = [found for name, directory in gts(function) if gt in (None, name) for found in tree.walk(directory, "")]
    return [entry for path, entry in walked if isinstance(entry, File) and path.endswith(("/idle_residency_ms", "/rc6_residency_ms"))]


def hwmons(function: Function) -> Iterator[tuple[str, Directory]]:
    directory = function.directory.directory("hwmon")
    for name, hwmon in directory.entries.items() if directory is not None else ():
        if isinstance(hwmon, Directory):
            yield name, hwmon


def files(directory: Directory | None) -> list[tuple[str, File]]:
    return [(name, entry) for name, entry in directory.entries.items() if isinstance(entry, File)] if directory is not None else []


def grow(file: File, by: int) -> None:
    file.text = f"{int(file.text.strip() or '0') + by}\n"


def forget(function: Function) -> None:
    """The driver goes, and its counts with it."""
    for file in [*errors(function).values(), *energy(function), *idle(function)]:
        file.text = "0\n"
