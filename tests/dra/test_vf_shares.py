"""What VFs are published with, and that the scheduler gives away the card or its VFs, never both."""

from __future__ import annotations

import pytest
from hypothesis import given

from dra import vf_cards, vf_shares
from dra.layouts import Layout
from dra.vf_cards import Card
from dra.vf_profiles import FAIR_SHARE, VfProfile
from dra.vf_shares import Capacity
from tests.fakes.vf_cards import B60, B60_DEBUGFS, FLEX_170, FLEX_170_ECC, MAX_1550, PANTHER_LAKE, feasible_cuts, named


@pytest.mark.parametrize(
    ("profile", "card", "count", "capacity"),
    [
        (named("flex170_m16"), FLEX_170_ECC, 1, Capacity(846 << 20, 62)),
        (named("flex170_m16"), FLEX_170, 16, Capacity(1000 << 20, 62)),
        (named("max_128g_c1"), MAX_1550, 1, Capacity(120 << 30, 1000)),
        (named("b60_n3"), B60, 2, Capacity(8064 << 20, 333)),
        (FAIR_SHARE, B60_DEBUGFS, 4, Capacity(4 << 30, 250)),
        (FAIR_SHARE, PANTHER_LAKE, 7, Capacity(None, 142)),
        (vf_cards.own_profile("most", FLEX_170, memory_bytes=12 << 30), FLEX_170, 1, Capacity(12 << 30, 761)),
    ],
)
def test_capacity(profile: VfProfile, card: Card, count: int, capacity: Capacity) -> None:
    assert vf_shares.capacity(profile, card, count) == capacity


def test_a_card_that_is_not_cut_needs_no_counters() -> None:
    assert vf_shares.counters((), B60) is None


def test_counters_of_a_mixed_layout() -> None:
    made = vf_shares.counters((named("flex170_m2"), named("flex170_m4")), FLEX_170)
    assert made is not None
    assert made.vfs[1] == {"vfs": 1, "memory": 4000 << 20, "doorbells": 60}
    assert made.total == made.card == {"vfs": 2, "memory": 12000 << 20, "doorbells": 180}


def test_counters_say_only_what_is_known_of_every_vf() -> None:
    made = vf_shares.counters((FAIR_SHARE,) * 2, PANTHER_LAKE)
    assert made is not None and made.total == {"vfs": 2}


@given(feasible_cuts())
def test_all_vfs_fit_exactly_and_none_beside_the_card(cut: tuple[Card, Layout]) -> None:
    card, layout = cut
    made = vf_shares.counters(layout, card)
    assert made is not None and len(made.vfs) == len(layout)
    assert made.card == made.total and all(set(one) == set(made.total) for one in made.vfs)
    for name, total in made.total.items():
        assert sum(one[name] for one in made.vfs) == total
    for one in made.vfs:
        assert any(made.card[name] + one[name] > total for name, total in made.total.items())


@given(feasible_cuts())
def test_counters_keep_to_what_the_api_takes_and_the_card_has(cut: tuple[Card, Layout]) -> None:
    card, layout = cut
    made = vf_shares.counters(layout, card)
    assert made is not None and set(made.total) <= {"vfs", "memory", "doorbells"}  # eight cards of three are within 32
    assert all(0 < value < 1 << 63 for value in made.total.values())
    assert made.total.get("memory", 0) <= card.budget.memory_bytes and made.total.get("doorbells", 0) <= 256
    assert sum(vf_shares.capacity(profile, card, len(layout)).millicores for profile in layout) <= 1000
