from __future__ import annotations

import pytest

from dra.devices import Gpu
from dra.names import Bdf
from dra.selectors import Selector, matches, selector_fault

CARD = Gpu(bdf=Bdf("0000:18:00.0"), device="0xe211", model="Arc Pro B60")


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (Selector(bdf="0000:18:00.0"), True),
        (Selector(bdf="0000:3a:00.0"), False),
        (Selector(pci_id="0xe211", model="Arc Pro B60"), True),
        (Selector(pci_id="0xe211", integrated=True), False),
    ],
)
def test_all_fields_given_must_match(selector: Selector, fits: bool) -> None:
    assert matches(selector, CARD) is fits and selector_fault(selector) is None


@pytest.mark.parametrize(
    ("selector", "said"),
    [(Selector(), "every GPU"), (Selector(bdf="0000:18:0.0"), "not a PCI address"), (Selector(pci_id="0xE211"), "not a PCI device id")],
)
def test_what_is_wrong_with_it_is_said(selector: Selector, said: str) -> None:
    assert said in str(selector_fault(selector))
