"""`tools/release` on a copy of this repository, and the tree's own agreement about its version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nursery_apps.version import VERSION
from tools.releasing import changelog, places, versions

ROOT = Path(__file__).parents[3]


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    return subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tracked files as they are now, committed in a repository of their own."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    for name in git(ROOT, "ls-files").splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    text = (tmp_path / "CHANGELOG.md").read_text()
    (tmp_path / "CHANGELOG.md").write_text(text.replace(changelog.UNRELEASED, f"{changelog.UNRELEASED}\n\n### Fixed\n\n- A thing.\n", 1))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "copy")
    return tmp_path


def release(root: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-B", "-m", "tools.releasing", version], cwd=root, capture_output=True, text=True)


def raised() -> str:
    major, minor, *_ = versions.order(VERSION)
    return f"{major}.{minor + 1}.0"


def test_the_tree_agrees_about_its_version() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    files = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    assert places.stale(ROOT, files) == []


@pytest.mark.parametrize("suffix", ["", "-rc.1"])
def test_a_release_is_named_everywhere_and_has_its_section(copy: Path, suffix: str) -> None:
    version = raised() + suffix
    done = release(copy, version)
    assert done.returncode == 0, done.stderr
    changed = set(git(copy, "diff", "--name-only").split())
    assert changed == {"CHANGELOG.md", *(file for file, _ in places.PLACES if (copy / file).exists())}
    assert places.current(copy) == version
    assert places.stale(copy, git(copy, "ls-files").splitlines()) == []
    text = (copy / "CHANGELOG.md").read_text()
    assert changelog.notes(text, "Unreleased") == "" and "- A thing." in changelog.notes(text, version)
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    assert f"git tag -a v{version}" in done.stdout and f"git branch {versions.branch(version)} v{version}" in done.stdout
    git(copy, "commit", "-qam", "release")
    again = release(copy, version)
    assert again.returncode == 2 and "already" in again.stderr


def test_a_chart_beside_the_kustomizations_is_raised_too(copy: Path) -> None:
    chart = copy / "manifests" / "helm" / "intel-gpu-dra" / "Chart.yaml"
    if not chart.exists():
        chart.parent.mkdir(parents=True)
        chart.write_text(f'apiVersion: v2\nname: intel-gpu-dra\nversion: {VERSION}\nappVersion: "{VERSION}"\n')
        git(copy, "add", "-A")
        git(copy, "commit", "-qm", "chart")
    assert release(copy, raised()).returncode == 0
    assert re.findall(r'^(?:appVersion|version): "?([^"\n]*)', chart.read_text(), re.MULTILINE) == [raised()] * 2


def test_a_patch_makes_no_branch(copy: Path) -> None:
    major, minor, patch, _ = versions.order(VERSION)
    done = release(copy, f"{major}.{minor}.{patch + 1}")
    assert done.returncode == 0 and "git branch" not in done.stdout


@pytest.mark.parametrize("version", ["v9.0.0", "9.0", "9.0.0-beta.1", "9.0.0-rc.0", "9.0.0-rc", "09.0.0", "9.0.0+build", ""])
def test_what_is_no_version_is_refused(copy: Path, version: str) -> None:
    done = release(copy, version)
    assert done.returncode == 2 and "MAJOR.MINOR.PATCH" in done.stderr
    assert git(copy, "status", "--porcelain") == ""


def test_versions_only_rise(copy: Path) -> None:
    for version in ("0.0.9", f"{VERSION}-rc.1"):
        done = release(copy, version)
        assert done.returncode == 2 and "only rise" in done.stderr
    assert git(copy, "status", "--porcelain") == ""


def test_a_dirty_tree_is_refused(copy: Path) -> None:
    (copy / "new").touch()
    done = release(copy, raised())
    assert done.returncode == 2 and "not committed" in done.stderr and "?? new" in done.stderr


def test_a_place_that_nobody_knows_is_refused(copy: Path) -> None:
    (copy / "docs" / "new.md").write_text(f"Install intel-gpu-dra:{VERSION}.\n")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "new")
    done = release(copy, raised())
    assert done.returncode == 2 and "docs/new.md" in done.stderr
    assert git(copy, "status", "--porcelain") == ""


def test_a_second_place_in_code_is_refused_and_other_numbers_are_not(copy: Path) -> None:
    (copy / "dra" / "more.py").write_text(f'KUBELET = "{VERSION}"\n')
    git(copy, "add", "-A")
    files = git(copy, "ls-files").splitlines()
    assert places.stale(copy, files) == []
    (copy / "dra" / "more.py").write_text(f'VERSION = "{VERSION}"\n')
    assert [line for line in places.stale(copy, files) if line.startswith("dra/more.py")]


def test_nothing_unreleased_is_refused(copy: Path) -> None:
    text = (copy / "CHANGELOG.md").read_text()
    (copy / "CHANGELOG.md").write_text(text.replace(changelog.notes(text, "Unreleased"), "", 1))
    git(copy, "commit", "-qam", "empty")
    done = release(copy, raised())
    assert done.returncode == 2 and "nothing below" in done.stderr


def test_candidates_come_before_their_release() -> None:
    rising = ("0.9.9", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.0.1-rc.1", "1.10.0")
    assert [*rising] == sorted({*rising}, key=versions.order)
