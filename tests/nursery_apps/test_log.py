"""Log lines: one a line, whatever the text, with the claim they are about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from nursery_apps import log


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = before


def test_json_lines_carry_the_claim(out: io.StringIO) -> None:
    log.set_up("json", "info", out)
    with log.about_claim("uid-1"):
        logging.getLogger("nursery_apps.node.desk").warning("two\nlines %s", "é")
    logging.getLogger("nursery_apps.node.desk").info("no claim")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert {key: first[key] for key in ("level", "logger", "msg", "claimUID")} == {
        "level": "warning", "logger": "desk", "msg": "two\\nlines é", "claimUID": "uid-1",
    }  # fmt: skip
    assert "claimUID" not in second


def test_text_lines_are_one_line_each(out: io.StringIO) -> None:
    log.set_up("text", "info", out)
    with log.about_claim("uid-1"):
        logging.getLogger("dra").error("a\nforged line")
    assert out.getvalue().count("\n") == 1
    assert "ERROR   dra: a\\nforged line [claim uid-1]" in out.getvalue()


def test_the_level_changes_live_and_libraries_stay_quiet(out: io.StringIO) -> None:
    log.set_up("text", "error", out)
    logging.getLogger("nursery_apps.x").info("unheard")
    log.set_level("debug")
    logging.getLogger("nursery_apps.x").debug("heard")
    logging.getLogger("hpack").debug("a header table")
    assert "unheard" not in out.getvalue() and "heard" in out.getvalue() and "header" not in out.getvalue()
