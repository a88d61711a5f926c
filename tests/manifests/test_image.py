"""What the image is made of is what the daemons import."""

from __future__ import annotations

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
REQUIREMENTS = ROOT / "tools" / "requirements"
OUTSIDE_A_CLUSTER = {"kubernetes"}
KUBECTL = {"cel-expr-python"}


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (REQUIREMENTS / name).read_text(), re.M))


def test_versions_are_those_that_are_tested() -> None:
    shipped = locked("ship.lock")
    assert locked("image.lock").items() <= shipped.items()


def test_all_that_the_daemons_need_is_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project.get("optional-dependencies", {}).get("daemons", [])]
    wanted = {line.partition("==")[0] for line in declared} - OUTSIDE_A_CLUSTER - KUBECTL
    listed = {line for line in (REQUIREMENTS / "image.in").read_text().splitlines() if not line.startswith("#")}
    assert listed == wanted
