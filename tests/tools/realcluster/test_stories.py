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
    for name in ("RESULTS", "STORIES"):
        monkeypatch.setattr(stories, name, tmp_path)
    monkeypatch.setattr(stories, "CONTRACTS", ())
    monkeypatch.setattr(stories, "PAGE", tmp_path / "versions.md")
    (tmp_path / "test_1_install.py").write_text('"""Installing it.\n\nMore."""\n')
    (tmp_path / "test_2_pods.py").write_text('"""Pods."""\n')
    (tmp_path / "1.9.0.xml").write_text(RESULT)
    (tmp_path / "1.10.0.xml").write_text(RESULT.replace("needs 1.34", "is late"))
    return tmp_path


def test_a_row_a_story_a_column_a_release_and_the_reasons_below(places: pathlib.Path) -> None:
    lines = stories.table([Release("1.10.0"), Release("1.9.0")]).splitlines()
    assert lines[2] == "| story | 1.9.0 | 1.10.0 |", "oldest first"
    assert lines[4:6] == ["| Installing it | 2 | 2 |", "| Pods | **2 failed** – | **2 failed** – |"]
    assert lines[-2:] == ["- 1.9.0: needs 1.34", "- 1.10.0: is late"]


def test_the_page_keeps_what_people_wrote(places: pathlib.Path) -> None:
    stories.PAGE.write_text(f"# Title\n{stories.BEGIN}old\n{stories.END}Written by hand.\n")
    for _ in range(2):
        stories.write_page([Release("1.9.0")])
    text = stories.PAGE.read_text()
    assert text.startswith("# Title\n") and text.endswith("Written by hand.\n")
    assert "old" not in text and text.count("| Installing it | 2 |") == 1
