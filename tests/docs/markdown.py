"""What is in a Markdown file, as far as tests look at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    sorted(
        path
        for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md"))
        if ".venv" not in path.parts
    )
)
SHELL: Final = ("", "sh", "shell", "bash", "console")
"""Languages of fenced blocks that people type. Everything else says another: `text` for what is only shown."""


class Command(NamedTuple):
    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def _fences(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(number of the first line, language, lines) of each block."""
    language, began, inside = None, 0, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if (match := re.match(r"\s*```(\w*)", line)) is None:
            inside.append(line)
        elif language is None:
            language, began, inside = match[1], number + 1, []
        else:
            yield began, language, inside
            language, inside = None, []
    assert language is None, f"{page}: a block without an end"


def typed(page: Path) -> Iterator[Command]:
    """Every line of every shell block, continued lines joined."""
    for began, language, lines in _fences(page):
        if language not in SHELL:
            continue
        held, since = "", began
        for number, line in enumerate(lines, began):
            since = since if held else number
            held += line.removeprefix("$ ")
            if held.endswith("\\"):
                held = held[:-1]
                continue
            if held.strip() and not held.strip().startswith("#"):
                yield Command(page, since, held.strip())
            held = ""


def prose(page: Path) -> str:
    """Without fenced blocks, whose lines are left empty."""
    kept, fenced = [], False
    for line in page.read_text().splitlines():
        if re.match(r"\s*```", line):
            fenced = not fenced
            kept.append("")
        else:
            kept.append("" if fenced else line)
    return "\n".join(kept)


def quoted(page: Path) -> Iterator[Command]:
    """Every `word in such quotes`, with its line."""
    for number, line in enumerate(prose(page).splitlines(), 1):
        for text in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
            yield Command(page, number, text)


def links(page: Path) -> Iterator[Command]:
    """Targets of links."""
    for number, line in enumerate(prose(page).splitlines(), 1):
        for target in re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            yield Command(page, number, target)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if not count else f"{slug}-{count}" for slug, times in found.items() for count in range(times + 1)}
