"""What is written to cut a card and to make it whole again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from dra import layouts, vf_cards, vf_quotas
from dra.layouts import Layout
from dra.vf_cards import Card, Interface
from dra.vf_profiles import FAIR_SHARE
from dra.vf_quotas import Write
from tests.fakes.vf_cards import B60, B60_619, B60_BULK, B60_DEBUGFS, FLEX_170_ECC, MAX_1550, feasible_cuts, like, named


def lines(writes: tuple[Write, ...]) -> list[str]:
    return [f"{write.path}={write.text}" for write in writes]


def test_every_file_of_a_vf_on_prelim_i915_in_order() -> None:
    assert lines(vf_quotas.quotas((named("flex170_m4"), named("flex170_m2")), FLEX_170_ECC)) == [
        "vf1/gt/contexts_quota=1024",
        "vf1/gt/doorbells_quota=60",
        "vf1/gt/exec_quantum_ms=16",
        "vf1/gt/ggtt_quota=1006632960",
        "vf1/gt/lmem_quota=3548381184",
        "vf1/gt/preempt_timeout_us=32000",
        "vf2/gt/contexts_quota=1024",
        "vf2/gt/doorbells_quota=120",
        "vf2/gt/exec_quantum_ms=32",
        "vf2/gt/ggtt_quota=2013265920",
        "vf2/gt/lmem_quota=7098859520",
        "vf2/gt/preempt_timeout_us=64000",
    ]


def test_memory_is_divided_among_tiles_and_the_rest_is_of_each() -> None:
    written = lines(vf_quotas.quotas((named("max_128g_c16"),), MAX_1550))
    assert [line for line in written if "gt1" in line] == [line.replace("gt0", "gt1") for line in written if "gt0" in line]
    assert "vf1/gt1/lmem_quota=4026531840" in written
    assert "vf1/gt1/ggtt_quota=251658240" in written
    assert "vf1/gt1/doorbells_quota=15" in written
    assert "vf1/gt1/exec_quantum_ms=16" in written


def test_xe_takes_times_and_the_memory_of_all_tiles() -> None:
    assert lines(vf_quotas.quotas((named("b60_n4"),) * 2, B60)) == [
        "vf1/profile/exec_quantum_ms=50",
        "vf1/profile/preempt_timeout_us=616000",
        "vf1/profile/vram_quota=6341787648",
        "vf2/profile/exec_quantum_ms=50",
        "vf2/profile/preempt_timeout_us=616000",
        "vf2/profile/vram_quota=6341787648",
    ]


def test_one_quota_for_all_is_written_once() -> None:
    written = lines(vf_quotas.quotas((named("b60_n24"),) * 3, B60_BULK))
    assert written[-1] == ".bulk_profile/vram_quota=1056964608" and sum("vram" in line for line in written) == 1


@pytest.mark.parametrize("card", [FLEX_170_ECC, B60, B60_619, B60_DEBUGFS])
def test_for_a_fair_share_nothing_is_written(card: Card) -> None:
    assert vf_quotas.quotas((FAIR_SHARE,) * 4, card) == vf_quotas.quotas((), card) == ()


def test_what_is_not_feasible_is_not_written() -> None:
    with pytest.raises(ValueError, match="profile b60_n4 is for 0xe211, 0xe216, and "):
        vf_quotas.quotas((named("b60_n4"),), FLEX_170_ECC)


def test_clearing_prelim_i915_zeroes_every_vf_there_could_be_and_gives_the_split_back_last() -> None:
    written = lines(vf_quotas.cleared(MAX_1550))
    assert written[0] == "vf1/gt0/contexts_quota=0" and written[-1] == "pf/auto_provisioning=1"
    assert len(written) == 63 * 2 * 6 + 1 and all(line.endswith("=0") for line in written[:-1])
    assert "vf63/gt1/lmem_quota=0" in written
    assert not any("lmem" in line for line in lines(vf_quotas.cleared(like(FLEX_170_ECC, memory_bytes=None))))


def test_clearing_xe_zeroes_what_its_release_has() -> None:
    assert len(vf_quotas.cleared(B60)) == 24 * 3 and len(vf_quotas.cleared(B60_619)) == 24 * 2
    assert lines(vf_quotas.cleared(B60))[-1] == "vf24/profile/vram_quota=0"
    assert vf_quotas.cleared(B60_DEBUGFS) == ()


@given(feasible_cuts())
def test_what_is_written_never_exceeds_the_card_and_is_all_cleared(cut: tuple[Card, Layout]) -> None:
    card, layout = cut
    written = vf_quotas.quotas(layout, card)
    assert len({write.path for write in written}) == len(written)
    assert all(write.text.isascii() and write.text.isdecimal() for write in written)
    memory = sum(int(write.text) for write in written if re.search("(lmem|vram)_quota", write.path))
    assert memory <= (card.memory_bytes or 0)
    if card.interface is Interface.PRELIM:
        assert memory == sum(vf_cards.memory_of(profile, card) for profile in layout)
        for gt in card.gts:
            doorbells = [int(write.text) for write in written if write.path.endswith(f"/{gt}/doorbells_quota")]
            assert sum(doorbells) <= 240 and len(doorbells) in (0, len(layout))
    cleared = {write.path for write in vf_quotas.cleared(card)}
    assert {write.path for write in written if not write.path.startswith(".bulk")} <= cleared


@given(feasible_cuts())
def test_nothing_is_written_exactly_for_fair_shares(cut: tuple[Card, Layout]) -> None:
    card, layout = cut
    assert (vf_quotas.quotas(layout, card) == ()) == (not any(profile.has_quotas for profile in layout))
    assert layouts.feasible(layout, card) == ()
