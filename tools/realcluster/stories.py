"""Runs tests/e2e on clusters, and writes down what each release was seen to do."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import Final

from tools.realcluster import programs
from tools.realcluster.cluster import Cluster
from tools.realcluster.versions import Release

ROOT: Final = pathlib.Path(__file__).parent.parent.parent
STORIES: Final = ROOT / "tests" / "e2e"
CONTRACTS: Final = tuple(ROOT / "tests" / "contracts" / name for name in ("test_api_server.py", "test_kubelet.py"))
"""What simcluster's API server and kubelet promise too; they speak of slices, so no classic release is asked."""
RESULTS: Final = ROOT / "build" / "e2e"
IMAGE: Final = ROOT / "build" / "image" / "intel-gpu-dra-simulated.tar"
PAGE: Final = ROOT / "docs" / "versions.md"
FAMILY: Final = ("-o", "junit_family=xunit1")
"""Of the result's format: the later one has no room for the figures that tests print."""
BEGIN, END = "<!-- made by tools/cluster test --version all -->\n", "<!-- end -->\n"


def build_image() -> None:
    """Before a cluster's network is entered: there are no package indexes in it."""
    subprocess.run([ROOT / "tools" / "image"], check=True, stdout=sys.stderr)


def on_own_cluster(cluster: Cluster, release: Release, arguments: Sequence[str], *, keep: bool, say: Callable[[str], None]) -> bool:
    """Bring a cluster up, run the stories on it, take it down; whether all passed. Logs of a failure are kept."""
    cluster.up(release)
    try:
        cluster.load(IMAGE)
        environment = {
            "KUBECONFIG": str(cluster.site.kubeconfig()),
            "KUBECTL": str(programs.kubernetes(release).directory / "kubectl"),
            "CLUSTER_DIR": str(cluster.site.root),
        }
        arguments = [f"--junit-xml={result(release)}", *FAMILY, *arguments]
        passed = _pytest(cluster.node.enter("--net"), environment, stories_of(release), arguments)
        if not passed:
            kept = RESULTS / f"logs-{release}"
            shutil.copytree(cluster.site.root / "log", kept, dirs_exist_ok=True)
            say(f"the cluster's logs are in {kept}")
        return passed
    finally:
        if not keep:
            cluster.down()


def stories_of(release: Release) -> tuple[pathlib.Path, ...]:
    rollout = sorted((STORIES / "rollout").glob("test_*.py"))  # last: they remove what the others have installed
    if release.is_classic:
        return (*sorted((STORIES / "classic").glob("test_*.py")), *rollout)
    return (*sorted(STORIES.glob("test_*.py")), *sorted((STORIES / "controller").glob("test_*.py")), *CONTRACTS, *rollout)


def on_existing_cluster(kubeconfig: pathlib.Path, pod_image: str, arguments: Sequence[str]) -> bool:
    return _pytest([], {"KUBECONFIG": str(kubeconfig), "CLUSTER_POD_IMAGE": pod_image}, (STORIES, *CONTRACTS), arguments)


def _pytest(prefix: Sequence[str], environment: dict[str, str], tests: Sequence[pathlib.Path], arguments: Sequence[str]) -> bool:
    command = [*prefix, sys.executable, "-m", "pytest", *map(str, tests), *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, env=os.environ | environment | {"CLUSTER_E2E": "1"}).returncode == 0


def result(release: Release) -> pathlib.Path:
    return RESULTS / f"{release}.xml"


# --- the page ---------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Cell:
    """One story on one release."""

    passed: int = 0
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Reason -> tests."""
    failed: int = 0

    def __str__(self) -> str:
        words = [f"**{self.failed} failed**"] if self.failed else []
        words += [str(self.passed)] if self.passed or not self.skipped else []
        return ", ".join(words) + (" –" if self.skipped else "")


def write_page(releases: Sequence[Release]) -> None:
    """Release × story into docs/versions.md, between its two marks: a table for each way of allocating.

    Raises:
        OSError: there is no result of one of the releases.
    """
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    kinds = ([release for release in releases if release.is_classic is classic] for classic in (False, True))
    tables = "\n".join(table(kind) for kind in kinds if kind)
    PAGE.write_text(f"{before}{BEGIN}{tables}{END}{after}")


def table(releases: Sequence[Release]) -> str:
    """Of releases with the same stories."""
    found = {release.version: read(result(release).read_text()) for release in releases}
    versions = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    lines = [
        f"Run on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}. A number is how many tests passed; with a dash, that some could not run.",
        "",
        f"| story | {' | '.join(versions)} |",
        f"|---|{'---|' * len(versions)}",
    ]
    reasons: dict[str, list[str]] = {}
    for path in stories_of(releases[0]):
        key = f"{path.parent.name}.{path.stem}"
        cells = {version: found[version][key] for version in versions if key in found[version]}
        lines.append(f"| {title(path)} | {' | '.join(str(cells.get(version, 'not run')) for version in versions)} |")
        for version, cell in cells.items():
            for reason in cell.skipped:
                reasons.setdefault(reason, []).append(version)
    lines += ["", "Not run, and why:", ""]
    lines += [f"- {', '.join(where)}: {reason}" for reason, where in reasons.items()]
    return "\n".join(lines) + "\n"


def title(path: pathlib.Path) -> str:
    """A story's first sentence."""
    text = ast.get_docstring(ast.parse(path.read_text())) or path.stem
    return text.partition("\n")[0].rstrip(".")


def read(junit: str) -> dict[str, Cell]:
    """pytest's JUnit XML -> `folder.module` -> what became of its tests."""
    cells: dict[str, Cell] = {}
    for case in ElementTree.fromstring(junit).iter("testcase"):
        cell = cells.setdefault(".".join(case.attrib["classname"].split(".")[-2:]), Cell())
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.attrib["message"]
            cell.skipped[reason] = cell.skipped.get(reason, 0) + 1
        elif case.find("failure") is not None or case.find("error") is not None:
            cell.failed += 1
        else:
            cell.passed += 1
    return cells
