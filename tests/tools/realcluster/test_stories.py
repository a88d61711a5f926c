"""What is written down about releases is what their test runs said."""

from __future__ import annotations

import pathlib

import pytest

from tools.realcluster import stories
from tools.realcluster.versions import Release

RESULT = """<?xml version="1.0"?>
<testsuites><testsuite>
<testcase classname="tests.e2e.test_1_install" name="a"/>
<testcase classname="tests.e2e.test_1_install" name="b"/>
<testcase classname="tests.e2e.test_2_pods" name="c"><skipped type="pytest.skip" message="needs 1.34">where</skipped></testcase>
<testcase classname="tests.e2e.test_2_pods" name="d"><failure message="no">trace</failure></testcase>
<testcase classname="tests.e2e.test_2_pods" name="e"><error message="no">trace</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def places(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    folder = tmp_path / "e2e"
    folder.mkdir()
    monkeypatch.setattr(stories, "RESULTS", tmp_path)
    monkeypatch.setattr(stories, "STORIES", folder)
    monkeypatch.setattr(stories, "CONTRACTS", ())
    monkeypatch.setattr(stories, "PAGE", tmp_path / "versions.md")
    (folder / "test_1_install.py").write_text('"""Installing it.\n\nMore."""\n')
    (folder / "test_2_pods.py").write_text('"""Pods."""\n')
    (tmp_path / "1.39.0.xml").write_text(RESULT)
    (tmp_path / "1.40.0.xml").write_text(RESULT.replace("needs 1.34", "is late"))
    return tmp_path


def test_a_row_a_story_a_column_a_release_and_the_reasons_below(places: pathlib.Path) -> None:
    lines = stories.table([Release("1.40.0"), Release("1.39.0")]).splitlines()
    assert lines[2] == "| story | 1.39.0 | 1.40.0 |", "oldest first"
    assert lines[4:6] == ["| Installing it | 2 | 2 |", "| Pods | **2 failed** – | **2 failed** – |"]
    assert lines[-2:] == ["- 1.39.0: needs 1.34", "- 1.40.0: is late"]


def test_classic_releases_have_stories_of_their_own(places: pathlib.Path) -> None:
    (places / "e2e" / "classic").mkdir()
    (places / "e2e" / "classic" / "test_1_install.py").write_text('"""Installing the controller."""\n')
    (places / "1.28.0.xml").write_text(RESULT.replace("tests.e2e.", "tests.e2e.classic."))
    (places / "1.31.0.xml").write_text(RESULT)
    stories.PAGE.write_text(f"{stories.BEGIN}{stories.END}")
    stories.write_page([Release("1.31.0"), Release("1.28.0")])
    text = stories.PAGE.read_text()
    assert text.index("| story | 1.31.0 |") < text.index("| Installing it | 2 |") < text.index("| story | 1.28.0 |")
    assert text.count("| Installing the controller | 2 |") == 1


def test_the_page_keeps_what_people_wrote(places: pathlib.Path) -> None:
    stories.PAGE.write_text(f"# Title\n{stories.BEGIN}old\n{stories.END}Written by hand.\n")
    for _ in range(2):
        stories.write_page([Release("1.39.0")])
    text = stories.PAGE.read_text()
    assert text.startswith("# Title\n") and text.endswith("Written by hand.\n")
    assert "old" not in text and text.count("| Installing it | 2 |") == 1
