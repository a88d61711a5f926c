"""Which layouts a card can have, and what a change of layout takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import layouts, vf_cards, vf_profiles
from dra.layouts import Layout, Verdict
from dra.names import ClaimUid
from dra.vf_cards import Card
from dra.vf_profiles import FAIR_SHARE, UNKNOWN
from tests.fakes.vf_cards import (
    B60,
    B60_619,
    B60_BULK,
    B60_DEBUGFS,
    CARDS,
    FLEX_170,
    FLEX_170_ECC,
    MAX_1550,
    PANTHER_LAKE,
    cut_cards,
    feasible_cuts,
    like,
    named,
)

M2, M4, M8 = named("flex170_m2"), named("flex170_m4"), named("flex170_m8")
B4, B8 = named("b60_n4"), named("b60_n8")
FAIR = FAIR_SHARE


@pytest.mark.parametrize("card", [FLEX_170, FLEX_170_ECC, MAX_1550, B60], ids=lambda card: card.device)
def test_every_profile_of_a_card_fills_it(card: Card) -> None:
    for profile in vf_profiles.for_device(card.device):
        layout = layouts.fill(profile, card)
        assert (len(layout), layouts.feasible(layout, card)) == (profile.per_card, ())
        assert layouts.feasible((*layout, profile), card) != ()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.device}-{card.interface}")
def test_fair_share_is_possible_with_every_driver_that_makes_vfs(card: Card) -> None:
    assert len(layouts.fill(FAIR, card)) == card.max_vfs
    assert layouts.feasible(layouts.fill(FAIR, card), card) == () == layouts.feasible((), card)


@pytest.mark.parametrize(
    ("layout", "card", "words"),
    [
        ((FAIR,) * 25, B60, "25 VFs are more than the 24 that 0000:18:00.0 can have"),
        ((FAIR,), like(B60, max_vfs=0), "0000:18:00.0 can have no VFs with the driver it has"),
        ((UNKNOWN, UNKNOWN), B60, "nobody knows the profile of VFs 1 to 2"),
        ((B4,), FLEX_170, "profile b60_n4 is for 0xe211, 0xe216, and 0000:2c:00.0 is 0x56c0"),
        (
            (M4, FAIR, M4),
            FLEX_170,
            "VF 2 cannot be fair-share beside VFs with quotas: the kernel splits the whole card or nothing",
        ),
        (
            (B4,),
            B60_DEBUGFS,
            "the driver of 0000:18:00.0 has no files for quotas of VFs: only fair-share is possible (xe before Linux 6.19)",
        ),
        ((B4,), B60_619, "the driver of 0000:18:00.0 takes no quota of memory (vram_quota): only fair-share is possible"),
        ((B4, B8), B60_BULK, "the driver of 0000:18:00.0 takes one quota of memory for all VFs: b60_n4 + b60_n8 are mixed"),
        ((B4,), B60_BULK, "b60_n4 need 152202903552 bytes of memory, 0000:18:00.0 has 25534922752 for VFs"),
        ((B4,), like(B60, memory_bytes=None), "the memory of 0000:18:00.0 is not known: only fair-share is possible"),
        ((named("max_128g_c1"),), like(MAX_1550, gts=("gt0",)), "0001:2a:00.0 has 2 tiles, and its VFs show 1 GTs"),
        ((M4,) * 5, FLEX_170, "5 × flex170_m4 need 20971520000 bytes of memory, 0000:2c:00.0 has 16911433728 for VFs"),
        ((M2, M2, M8), FLEX_170, "2 × flex170_m2 + flex170_m8 need 270 doorbells, 0000:2c:00.0 has 240 for VFs"),
        (
            (named("max_128g_c2"),) * 3,
            MAX_1550,
            "3 × max_128g_c2 need 360 doorbells on each tile, 0001:2a:00.0 has 240 for VFs",
        ),
        ((M2, M2, M8), FLEX_170, "2 × flex170_m2 + flex170_m8 need 4529848320 bytes of GGTT, 0000:2c:00.0 has 4026531840 for VFs"),
    ],
)
def test_why_not(layout: Layout, card: Card, words: str) -> None:
    assert words in layouts.feasible(layout, card)


def test_contexts_are_counted_as_the_kernel_rounds_them() -> None:
    own = vf_cards.own_profile("mine", FLEX_170, memory_bytes=1 << 29, contexts_per_gt=32641)
    assert layouts.feasible((own,), FLEX_170) == ()
    assert layouts.feasible((own, own), FLEX_170) == ("2 × mine need 65536 contexts, 0000:2c:00.0 has 65279 for VFs",)


def test_mixed_sizes_fit_where_their_sums_do() -> None:
    assert layouts.feasible((M2, M4, M8, M8), FLEX_170_ECC) == ()
    assert layouts.feasible((named("b60_n2"), B4, B8, B8), B60) == ()


def test_a_driver_with_one_quota_for_all_keeps_it_for_every_vf_that_could_be() -> None:
    assert layouts.feasible((named("b60_n24"),) * 3, B60_BULK) == ()


@given(cut_cards())
def test_feasible_layouts_never_take_more_than_there_is(cut: tuple[Card, Layout]) -> None:
    card, layout = cut
    reasons = layouts.feasible(layout, card)
    assert all(reason and "\n" not in reason and len(reason) < 200 for reason in reasons)
    if reasons:
        return
    assert len(layout) <= card.max_vfs and UNKNOWN not in layout
    quotas = [vf_cards.quota_of(profile, card) for profile in layout]
    assert sum(q.memory_bytes for q in quotas) <= (card.memory_bytes or 0) - (card.tiles << 27 if any(quotas) and card.memory_bytes else 0)
    assert sum(q.ggtt_bytes_per_gt for q in quotas) <= 4 << 30 and sum(q.contexts_per_gt for q in quotas) <= 65279
    assert sum(q.doorbells_per_gt for q in quotas) <= 256
    assert len({profile.has_quotas for profile in layout}) <= 1


@given(feasible_cuts(), st.data())
def test_what_is_feasible_stays_so_with_fewer_vfs(cut: tuple[Card, Layout], data: st.DataObject) -> None:
    card, layout = cut
    assert layouts.feasible(layout, card) == ()
    gone = data.draw(st.integers(0, len(layout) - 1))
    assert layouts.feasible(layout[:gone] + layout[gone + 1 :], card) == ()


def claims(*names: str) -> list[ClaimUid]:
    return [ClaimUid(name) for name in names]


@pytest.mark.parametrize(
    ("now", "wanted", "in_use", "verdict", "why"),
    [
        ((), (), {0: claims("a")}, Verdict.NOTHING, "it has no VFs, as wanted"),
        ((M4, M4), (M4, M4), {1: claims("a")}, Verdict.NOTHING, "it has 2 × flex170_m4, as wanted"),
        ((M4, M2), (M2, M4), {1: claims("a")}, Verdict.NOTHING, "it has flex170_m4 + flex170_m2, as wanted"),
        ((), (M2,), {}, Verdict.CARVE, "from no VFs to flex170_m2: nothing is in use"),
        ((M2,), (), {1: []}, Verdict.UNCARVE, "from flex170_m2 to no VFs: no VF is in use"),
        ((FAIR,) * 2, (FAIR,) * 3, {}, Verdict.RECARVE, "from 2 × fair-share to 3 × fair-share: no VF is in use"),
        ((UNKNOWN,) * 4, (M4,) * 4, {}, Verdict.RECARVE, "from 4 × unknown to 4 × flex170_m4: no VF is in use"),
        (
            (),
            (M2,),
            {0: claims("a")},
            Verdict.BLOCKED,
            "from no VFs to flex170_m2 needs the whole card, and in use are the card itself by claim a",
        ),
        (
            (M4,) * 3,
            (M4,) * 4,
            {3: claims("b", "a"), 1: claims("c"), 2: []},
            Verdict.BLOCKED,
            "from 3 × flex170_m4 to 4 × flex170_m4 takes all VFs away, and in use are VF 1 by claim c; VF 3 by claims a, b",
        ),
    ],
)
def test_changes(now: Layout, wanted: Layout, in_use: dict[int, list[ClaimUid]], verdict: Verdict, why: str) -> None:
    made = layouts.change(now, wanted, in_use)
    assert (made.verdict, made.why) == (verdict, why)
    assert made.blockers == (tuple(sorted(vf for vf, held in in_use.items() if held)) if verdict is Verdict.BLOCKED else ())


any_layout = st.lists(st.sampled_from([M2, M4, FAIR, UNKNOWN]), max_size=5).map(tuple)


@given(any_layout, any_layout, st.dictionaries(st.integers(0, 5), st.lists(st.sampled_from(claims("a", "b")), max_size=2, unique=True)))
def test_nothing_in_use_is_touched_without_saying_so(now: Layout, wanted: Layout, in_use: dict[int, list[ClaimUid]]) -> None:
    made = layouts.change(now, wanted, in_use)
    held = {vf for vf, holders in in_use.items() if holders}
    assert not (held and made.verdict in (Verdict.CARVE, Verdict.UNCARVE, Verdict.RECARVE))
    assert (made.verdict is Verdict.NOTHING) == (sorted(p.name for p in now) == sorted(p.name for p in wanted))
    if made.verdict is Verdict.BLOCKED:
        assert set(made.blockers) == held
        assert all(("the card itself" if vf == 0 else f"VF {vf} by") in made.why for vf in held)


def test_sentences_stay_short_however_many_vfs_there_are() -> None:
    made = layouts.change((M4,) * 31, (), {vf: claims(f"0b0c2ee5-57a8-4c8b-a1c4-9a1b36e2c1{vf:02}") for vf in range(1, 32)})
    assert made.blockers == tuple(range(1, 32))
    assert made.why.endswith("; and 25 more") and len(made.why) < 450
    assert "VFs 1, 3, 5, 7, 9, 11, ... cannot be fair-share" in layouts.feasible((FAIR, M4) * 10, FLEX_170)[0]
    assert "VFs 2 to 9, 12 cannot be fair-share" in layouts.feasible((M4, *[FAIR] * 8, M4, M4, FAIR), FLEX_170)[0]


def test_layouts_are_described_by_size() -> None:
    assert layouts.describe((M4, M2, M4)) == "2 × flex170_m4 + flex170_m2"
    assert layouts.describe(()) == "no VFs"


def test_a_card_that_can_have_fewer_vfs_is_filled_with_fewer() -> None:
    assert layouts.fill(M8, like(FLEX_170, max_vfs=5)) == (M8,) * 5
    assert layouts.fill(FAIR, PANTHER_LAKE) == (FAIR,) * 7
