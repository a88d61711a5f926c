"""Looks through an image's file system for what it should not have: python -m tools.imaging.scan DIRECTORY"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import stat
import sys
from collections.abc import Iterator
from typing import Final

MOST_BYTES: Final = 120 * 1000 * 1000
PROGRAMS: Final = ("gpu-controller", "gpu-node-plugin", "ldconfig", "python3", "sim")
"""`sim` only in the image for trying it without a GPU; ldconfig tells pyudev where libudev is."""
SBOM: Final = "usr/share/doc/intel-gpu-dra/sbom.cdx.json"
BIN: Final = ("bin", "sbin")


def main(directory: str) -> int:
    """Prints what the image weighs and what is wrong with it; 1 if something is."""
    root = pathlib.Path(directory)
    files = list(regular(root))
    weight = sum(path.stat().st_size for path in files)
    print(f"{weight / 1e6:.1f} MB in {len(files)} files: {', '.join(heaviest(root, files))}")
    wrong = list(faults(root, files, weight))
    for fault in wrong:
        print(f"  {fault}", file=sys.stderr)
    return 1 if wrong else 0


def regular(root: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def heaviest(root: pathlib.Path, files: list[pathlib.Path], most: int = 6) -> list[str]:
    """Directories three levels deep."""
    weights: collections.Counter[str] = collections.Counter()
    for path in files:
        weights["/".join(path.relative_to(root).parts[:3])] += path.stat().st_size
    return [f"{name} {weight / 1e6:.1f}" for name, weight in weights.most_common(most)]


def faults(root: pathlib.Path, files: list[pathlib.Path], weight: int) -> Iterator[str]:
    """What should not be, a sentence each."""
    if weight > MOST_BYTES:
        yield f"{weight / 1e6:.1f} MB are more than the {MOST_BYTES / 1e6:.0f} that a node should have to pull"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            if not (root / os.path.normpath(os.path.join("/", name.parent, os.readlink(path))).lstrip("/")).exists():
                yield f"{name} is a link to nothing"
            continue
        if mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"{name} changes who runs it"
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield f"{name} can be written by others than root"
        if path.parent.name in BIN and path.is_file() and not path.name.startswith(PROGRAMS):
            yield f"{name} is a program that nothing here runs"
    for path in files:
        if path.suffix == ".py" and path.parent.name not in BIN and not any(path.parent.glob(f"__pycache__/{path.stem}.*.pyc")):
            yield f"{path.relative_to(root)} is not compiled"
        if path.suffix in (".a", ".h", ".c", ".whl", ".exe"):
            yield f"{path.relative_to(root)} is for building"
    yield from unlisted(root)


def unlisted(root: pathlib.Path) -> Iterator[str]:
    """Python packages that the bill of materials does not name."""
    try:
        components = json.loads((root / SBOM).read_bytes())["components"]
    except (OSError, ValueError, KeyError) as error:
        yield f"{SBOM} is no bill of materials: {error!r}"
        return
    listed = {part["name"] for part in components}
    for path in root.glob("opt/*/*.dist-info"):
        name = path.name.partition("-")[0].lower().replace("_", "-").replace(".", "-")
        if name not in listed:
            yield f"{SBOM} does not name {name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
