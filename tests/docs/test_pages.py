"""Links lead somewhere, every page can be found, and every word of the glossary is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import markdown
from tests.docs.markdown import PAGES, ROOT

INDEX = ROOT / "docs" / "index.md"

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in markdown.links(page):
        if re.match(r"[a-z]+:", link.text):
            continue
        path, _, anchor = link.text.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif not target.is_relative_to(ROOT):
            wrong.append(f"{link}: leads out of the repository")
        elif anchor and (target.suffix != ".md" or anchor not in markdown.anchors(target)):
            wrong.append(f"{link}: there is no such heading")
    assert wrong == []


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, ahead = set(), [INDEX]
    while ahead:
        page = ahead.pop()
        if page not in seen and page.exists():
            seen.add(page)
            targets = (link.text.partition("#")[0] for link in markdown.links(page))
            linked = [(page.parent / target).resolve() for target in targets if ":" not in target]
            ahead += [target for target in linked if target.suffix == ".md"]
            ahead += [below for target in linked if target.is_dir() for below in target.glob("*.md")]
    missing = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - seen
    assert not missing, f"not linked from docs/index.md or what it links: {sorted(str(page.relative_to(ROOT)) for page in missing)}"


def test_the_index_itself_names_every_page_for_people() -> None:
    named = {(INDEX.parent / link.text.partition("#")[0]).resolve() for link in markdown.links(INDEX)}
    assert {page for page in (ROOT / "docs").glob("*.md") if page != INDEX} <= named


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/index.md" in {link.text for link in markdown.links(ROOT / "README.md")}


def test_words_of_the_glossary_are_used_and_said_once() -> None:
    glossary = ROOT / "docs" / "glossary.md"
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", glossary.read_text(), re.MULTILINE)
    assert len(words) == len(set(words)) > 30
    everything = "\n".join(page.read_text() for page in PAGES if page != glossary).lower()
    everything += "\n".join(path.read_text() for folder in ("dra", "nursery_apps") for path in (ROOT / folder).rglob("*.py")).lower()
    assert [word for entry in words for word in entry.split(", ") if word.lower() not in everything] == []
