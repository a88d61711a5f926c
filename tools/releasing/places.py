"""Where the tree names its own version, and where it may name an older one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PLACES: Final[tuple[tuple[str, str], ...]] = (
    ("nursery_apps/version.py", r'^VERSION: Final = "(.*)"$'),
    ("manifests/kustomize/cleanup/kustomization.yaml", r"^    newTag: (.*)$"),
    ("manifests/kustomize/controller/kustomization.yaml", r"^    newTag: (.*)$"),
    ("manifests/kustomize/node-plugin/kustomization.yaml", r"^    newTag: (.*)$"),
    ("manifests/helm/intel-gpu-dra/Chart.yaml", r'^version: "?(.*?)"?$'),
    ("manifests/helm/intel-gpu-dra/Chart.yaml", r'^appVersion: "?(.*?)"?$'),
    ("docs/versions.md", r"^This tree is version (\S+), "),
)
"""(file, pattern of a line whose group is the version). The first is the one that code reads; a file that is not there is passed over."""

HISTORY: Final = ("CHANGELOG.md",)
"""Says what a version did, and goes on saying it when there is a newer one."""

_OTHERS: Final = re.compile(r"(^|/)(go\.(mod|sum)|[^/]*\.lock)$")
"""Name versions of other people's things."""
_CODE: Final = re.compile(r"\.(py|pyi|json|proto)$")
"""Has numbers of many things that look like versions; ours stands there beside one of these words."""
_OURS: Final = r"(?:VERSION\b|intel-gpu-dra).*"


class Unplaced(ValueError):
    """A place is not what is said of it above, or there is one more."""


def current(root: Path) -> str:
    """The tree's version.

    Raises:
        Unplaced: the first place does not have one.
    """
    file, pattern = PLACES[0]
    return _find(root, file, pattern)[0]


def stale(root: Path, files: Iterable[str]) -> list[str]:
    """`file: what is wrong`, for places that name another version than the first, and for files that name it and are no place.

    Args:
        files: all that are tracked.
    """
    version = current(root)
    wrong = []
    for file, pattern in PLACES:
        if (root / file).exists() and (found := _find(root, file, pattern)[0]) != version:
            wrong.append(f"{file}: names {found}, the tree is {version}")
    known = {*HISTORY, *(file for file, _ in PLACES)}
    named = rf"(?<![\w.]){re.escape(version)}(?![\w.]*\d)"
    for file in files:
        if file in known or _OTHERS.search(file) or not (root / file).is_file():
            continue
        if re.search(_OURS + named if _CODE.search(file) else named, (root / file).read_text(errors="replace")):
            wrong.append(f"{file}: names {version}; leave it out there, or add the file to PLACES or HISTORY in tools/releasing/places.py")
    return wrong


def write(root: Path, version: str) -> list[str]:
    """Have every place name it; the files, each once."""
    changed: dict[str, None] = {}
    for file, pattern in PLACES:
        if (root / file).exists():
            text, (old, start) = (root / file).read_text(), _find(root, file, pattern)
            (root / file).write_text(text[:start] + version + text[start + len(old) :])
            changed[file] = None
    return list(changed)


def _find(root: Path, file: str, pattern: str) -> tuple[str, int]:
    """(version, where it starts)"""
    found = list(re.finditer(pattern, (root / file).read_text(), re.MULTILINE))
    if len(found) != 1:
        raise Unplaced(
            f"{file}: want one line like {pattern}, found {len(found)}: correct the file, or PLACES in tools/releasing/places.py"
        )
    return found[0][1], found[0].start(1)
