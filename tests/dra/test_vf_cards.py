"""How much of a card there is to share out, and what a VF really gets of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import layouts, vf_cards
from dra.vf_cards import Budget, Card
from dra.vf_profiles import FAIR_SHARE, UNKNOWN
from tests.fakes.vf_cards import B60, B60_DEBUGFS, FLEX_170, FLEX_170_ECC, MAX_1550, PANTHER_LAKE, cards, like, named


def test_the_pf_keeps_its_part_of_every_tile() -> None:
    assert B60.budget.memory_bytes == (25_669_140_480 - (128 << 20)) >> 21 << 21
    assert MAX_1550.budget.memory_bytes == (128 << 30) - (256 << 20)
    assert (FLEX_170.budget.doorbells_per_gt, FLEX_170.budget.contexts_per_gt) == (240, 65279)
    assert PANTHER_LAKE.budget.memory_bytes == 0


@pytest.mark.parametrize(
    ("card", "mib"),
    [
        (FLEX_170, 2000),
        (FLEX_170_ECC, 1692),
        (like(FLEX_170_ECC, ecc=False), 2000),
        (like(FLEX_170, ecc=True), 1692),
        (like(FLEX_170, ecc=None), 2000),
    ],
)
def test_where_nobody_says_whether_memory_is_checked_its_size_does(card: Card, mib: int) -> None:
    assert vf_cards.memory_of(named("flex170_m8"), card) == mib << 20


def test_xe_takes_a_quota_of_memory_only() -> None:
    assert vf_cards.quota_of(named("b60_n4"), B60) == Budget(6048 << 20, 0, 0, 0)
    assert vf_cards.quota_of(named("max_128g_c2"), MAX_1550) == Budget(60 << 30, 2013265920, 1024, 120)
    assert vf_cards.quota_of(FAIR_SHARE, FLEX_170) == vf_cards.quota_of(UNKNOWN, FLEX_170) == Budget(0, 0, 0, 0)


def test_a_fair_share_promises_what_every_kernel_gives() -> None:
    assert vf_cards.fair_memory_bytes(B60, 4) == 4 << 30  # the even part is 5.9 GiB
    assert vf_cards.fair_memory_bytes(B60_DEBUGFS, 24) == 512 << 20
    assert vf_cards.fair_memory_bytes(FLEX_170_ECC, 4) == (14_940_110_848 - (128 << 20)) // 4 >> 21 << 21
    assert vf_cards.fair_memory_bytes(PANTHER_LAKE, 7) == 0


@given(cards, st.integers(1, 62))
def test_fair_shares_fit(card: Card, count: int) -> None:
    share = vf_cards.fair_memory_bytes(card, count)
    assert count * share <= card.budget.memory_bytes and share % (card.tiles * vf_cards.MEMORY_STEP_BYTES) == 0


def test_an_own_profile_gets_an_even_part_of_what_it_leaves_out() -> None:
    own = vf_cards.own_profile("third", FLEX_170, memory_bytes=5 << 30)
    assert (own.per_card, own.memory_bytes, own.memory_ecc_bytes) == (3, 5 << 30, 5 << 30)
    assert (own.ggtt_bytes_per_gt, own.contexts_per_gt, own.doorbells_per_gt) == (1342177280, 1024, 80)
    assert (own.exec_quantum_ms, own.preempt_timeout_us) == (16, 32000)  # flex170_m4: the next table entry for three or more
    assert own.share == 1000 * (5 << 30) // FLEX_170.budget.memory_bytes == 317


def test_an_own_profile_keeps_what_it_says() -> None:
    own = vf_cards.own_profile(
        "mine", MAX_1550, memory_bytes=(1 << 30) + 1, ggtt_bytes_per_gt=65536, contexts_per_gt=1, doorbells_per_gt=0, exec_quantum_ms=0,
        preempt_timeout_us=7,
    )  # fmt: skip
    assert own.memory_bytes == (1 << 30) + (4 << 20)  # 2 MiB on each of two tiles
    assert (own.ggtt_bytes_per_gt, own.contexts_per_gt, own.doorbells_per_gt) == (65536, 1, 0)
    assert (own.exec_quantum_ms, own.preempt_timeout_us) == (0, 7)


def test_a_card_without_tables_gives_no_times_away() -> None:
    own = vf_cards.own_profile("half", like(B60, device="0xe20b"), memory_bytes=8 << 30)
    assert (own.per_card, own.exec_quantum_ms, own.preempt_timeout_us, own.doorbells_per_gt) == (2, 0, 0, 120)


@pytest.mark.parametrize(
    ("name", "memory", "words"),
    [
        ("fair-share", 1, "fair-share is a profile of the driver's own"),
        ("unknown", 1, "unknown is a profile of the driver's own"),
        ("flex170_m1", 1, "flex170_m1 is a profile of the driver's own"),
        ("mine", 0, "mine: memory is 0, a VF needs some"),
    ],
)
def test_what_is_no_own_profile(name: str, memory: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vf_cards.own_profile(name, FLEX_170, memory_bytes=memory)


@given(cards.filter(lambda card: card.memory_bytes is not None), st.integers(1, 1 << 38))
def test_an_own_profile_that_fits_once_fits_as_often_as_it_says(card: Card, memory: int) -> None:
    own = vf_cards.own_profile("mine", card, memory_bytes=memory)
    quota, budget = vf_cards.quota_of(own, card), card.budget
    assert 1 <= own.share <= 1000
    if own.memory_bytes > budget.memory_bytes:
        assert own.per_card == 1
        return
    assert own.per_card * quota.memory_bytes <= budget.memory_bytes
    assert own.per_card * quota.ggtt_bytes_per_gt <= budget.ggtt_bytes_per_gt
    assert own.per_card * quota.contexts_per_gt <= budget.contexts_per_gt
    assert own.per_card * quota.doorbells_per_gt <= budget.doorbells_per_gt
    assert own.per_card * own.share <= 1000 or own.share == 1
    assert layouts.feasible((own,) * own.per_card, card) == () or not card.splits_all
