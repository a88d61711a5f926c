"""The words of Events: one table, a page for each, and no word in the code beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

import pytest

from dra.errors import ClaimRefused, HardwareFault
from dra.kube import event_reasons
from dra.kube.event_reasons import MEANINGS, On, Reason

ROOT: Final = Path(__file__).parents[3]
PAGES: Final = ROOT / "docs" / "events"


def test_every_reason_has_a_meaning_and_the_order_is_one() -> None:
    assert tuple(MEANINGS) == get_args(Reason)


def test_each_reason_has_its_page_and_each_page_its_reason() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(MEANINGS)


@pytest.mark.parametrize("reason", MEANINGS)
def test_a_page_says_cause_and_cure_in_a_few_lines(reason: Reason) -> None:
    text, meaning = (PAGES / f"{reason}.md").read_text(), MEANINGS[reason]
    assert text.startswith(f"# {reason}\n\n{'Warning' if meaning.warning else 'Normal'} on {', '.join(meaning.on)}, by the ")
    assert meaning.text.split()[0] in text and re.findall(r"\*\*(\w+):\*\*", text) == ["Says", "Cause", "Cure"]
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize(
    "source", ["dra/card_errors.py", "dra/binding.py", "nursery_apps/node/card_owner.py", "nursery_apps/node/rebinder.py"]
)
def test_whatever_can_go_wrong_with_a_card_has_a_word_of_its_own(source: str) -> None:
    text = (ROOT / source).read_text()
    said = set(re.findall(r'reason="(\w+)"', text)) | set(re.findall(r'\(\w+, "(\w+)", "', text))
    said |= set(re.findall(r'error, "(\w+)"\)', text))
    assert said and said <= set(event_reasons.FINDINGS)


def test_an_error_without_a_word_of_its_own_is_told_under_another() -> None:
    assert event_reasons.of_error(HardwareFault("x", reason="KernelHangs"), "CardFault") == "KernelHangs"
    assert event_reasons.of_error(HardwareFault("x"), "CardFault") == "CardFault"
    assert event_reasons.of_error(ClaimRefused("x", reason="UnknownProfile"), "ClaimRefused") == "ClaimRefused"


def test_what_is_counted_is_of_the_node() -> None:
    assert all(MEANINGS[reason].on == (On.NODE,) and not MEANINGS[reason].controller for reason in event_reasons.FINDINGS)
