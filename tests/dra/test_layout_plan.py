from __future__ import annotations

import msgspec
import pytest

from dra import layout_plan
from dra.carvings import Carving
from dra.devices import Gpu
from dra.layouts import Layout
from dra.names import BootId, ClaimUid
from dra.sriov_settings import Sriov, Wanted
from tests.fakes.vf_cards import FLEX_170, named

M4, M8 = named("flex170_m4"), named("flex170_m8")
BOOT = BootId("boot-1")
CARD = Gpu(bdf=FLEX_170.bdf, device="0x56c0", model="Flex 170", max_vfs_usable=31)
CUT = msgspec.structs.replace(CARD, vfs_now=4)
CARVING = Carving(bdf=CARD.bdf, pci_id="0x56c0", profiles=(M4,) * 4, boot_id=BOOT)


@pytest.mark.parametrize(
    ("now", "wanted", "make", "users", "said"),
    [
        ((), (), "lazy", {}, None),
        ((), (M4,) * 4, "lazy", {}, "4 × flex170_m4 will be made when the first of them is claimed"),
        ((), (M4,) * 4, "eager", {}, "4 × flex170_m4 will be made now"),
        ((M4,) * 4, (M4,) * 4, "lazy", {}, "as wanted"),
        ((M4,) * 4, (M8,) * 8, "lazy", {}, "from 4 × flex170_m4 to 8 × flex170_m8: no VF is in use: it is done now"),
        ((M4,) * 4, (), "lazy", {2: [ClaimUid("a")]}, "VF 2 by claim a; it is done when they are released"),
        ((), (M4,) * 4, "eager", {0: [ClaimUid("b")]}, "the card itself by claim b; it is done when they are released"),
    ],
)
def test_it_says_what_will_be_done_when_and_who_stands_in_the_way(
    now: Layout, wanted: Layout, make: str, users: dict[int, list[ClaimUid]], said: str | None
) -> None:
    text = layout_plan.sentence(CARD, now, Wanted(wanted), msgspec.convert({"make": make}, Sriov), users)
    assert text is None if said is None else said in str(text) and "0000:2c:00.0 (Flex 170): " in str(text)


def test_a_layout_that_cannot_be_is_said_with_its_reasons() -> None:
    assert "cannot be cut as the settings say: no; never" in str(layout_plan.sentence(CARD, (), Wanted((), ("no", "never")), Sriov(), {}))


def test_what_a_card_has_is_told_by_the_journal_of_this_boot_only() -> None:
    assert layout_plan.present(CARD, CARVING, BOOT) == ()
    assert layout_plan.present(CUT, CARVING, BOOT) == CARVING.layout
    for carving, boot in ((None, BOOT), (CARVING, BootId("boot-2"))):
        foreign = layout_plan.present(CUT, carving, boot)
        assert "somebody else made" in str(layout_plan.sentence(CUT, foreign, Wanted((M8,)), Sriov(), {}))
