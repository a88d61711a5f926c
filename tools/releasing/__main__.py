"""Make this tree a release: its version everywhere, and the changelog's Unreleased under it. Nothing is committed."""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path

from tools.releasing import changelog, places, versions

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Exit code 2 if it is refused; then nothing was changed."""
    parser = argparse.ArgumentParser(prog="tools/release", description=__doc__)
    parser.add_argument("version", metavar="VERSION", help="MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-rc.N")
    version = parser.parse_args().version
    try:
        before, notes = _judge(version)
    except ValueError as refusal:
        print(f"tools/release: {refusal}", file=sys.stderr)
        return 2
    files = places.write(ROOT, version)
    (ROOT / "CHANGELOG.md").write_text(notes)
    print(f"{before} -> {version} in {', '.join(files)}; CHANGELOG.md has its section.\n\n{_next_steps(version)}")
    return 0


def _judge(version: str) -> tuple[str, str]:
    """(version of the tree, the changelog as it will be)"""
    wanted, before = versions.order(version), places.current(ROOT)
    if wanted < versions.order(before):
        raise ValueError(f"{version} is older than the tree, which is {before}: versions only rise")
    if changes := _git("status", "--porcelain"):
        raise ValueError(f"the tree has changes that are not committed; commit or drop them first:\n{changes}")
    if wrong := places.stale(ROOT, _git("ls-files").splitlines()):
        raise ValueError("the tree does not agree about its version:\n" + "\n".join(wrong))
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return before, changelog.release((ROOT / "CHANGELOG.md").read_text(), version, day)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip()


def _next_steps(version: str) -> str:
    branch = versions.branch(version)
    steps = [
        "git diff                                   # is it what you meant?",
        ".ci/run                                    # what every change must pass",
        f'git commit -am "Release {version}"',
        f"git tag -a v{version} -m {version}",
    ]
    if versions.is_first_of_branch(version):
        steps.append(f"git branch {branch} v{version}         # if it is not there yet: patches are made on it")
    steps.append("tools/image --base IMAGE                   # the image, tagged with the version")
    return "Next:\n\n" + "\n".join(f"  {step}" for step in steps) + "\n\nThe whole list is docs/releasing.md."


if __name__ == "__main__":
    sys.exit(main())
