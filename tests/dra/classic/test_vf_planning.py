from __future__ import annotations

from collections import Counter

import pytest

from dra import layouts, vf_profiles
from dra.classic import vf_planning
from dra.classic.vf_planning import CardShape, VfWish
from tests.dra.classic.nodes import card

FLEX = vf_planning.shape_of(card(1))
MAX = vf_planning.shape_of(card(1, model="0x0bd5", memory=131072, maxvfs=62, tiles=2))
B60 = vf_planning.shape_of(card(1, model="0xe211", memory=24480, maxvfs=7, quotas="none"))
B60_QUOTAS = vf_planning.shape_of(card(1, model="0xe211", memory=24480, maxvfs=7, quotas="admin"))
B60_BULK = vf_planning.shape_of(card(1, model="0xe211", memory=24480, maxvfs=7, quotas="admin", bulk_quota=True))
ALL = {"flex": FLEX, "max": MAX, "b60": B60, "b60 with quotas": B60_QUOTAS, "b60 with one quota": B60_BULK}


def profiles(shape: CardShape, *wishes: VfWish, default_memory: int = 0) -> dict[str, int]:
    found = vf_planning.plan(shape, wishes, default_memory)
    return dict(Counter(size.profile for size in found.sizes)) if found is not None else {}


def test_a_wish_is_met_by_the_smallest_profile_and_the_card_is_filled_with_the_same() -> None:
    assert profiles(FLEX, VfWish(3500)) == {"flex170_m4": 4}
    assert profiles(FLEX, VfWish(100)) == {"flex170_m16": 16}
    assert profiles(FLEX, VfWish(0, 250)) == {"flex170_m4": 4}
    assert profiles(FLEX, VfWish(16384)) == {}, "no VF is as large as the card"


def test_who_wishes_nothing_gets_the_models_default_or_what_the_settings_say() -> None:
    assert profiles(FLEX, VfWish()) == {"flex170_m8": 8}
    assert profiles(FLEX, VfWish(), default_memory=4000) == {"flex170_m4": 4}
    assert profiles(MAX, VfWish()) == {"max_128g_c16": 16}


def test_different_wishes_share_a_card_and_spare_vfs_take_the_rest() -> None:
    found = vf_planning.plan(FLEX, (VfWish(8000), VfWish(1000)))
    assert found is not None and found.given == (1, 2)
    assert [size.profile for size in found.sizes[:2]] == ["flex170_m2", "flex170_m16"] and len(found.sizes) > 4


def test_as_many_wishes_are_met_as_the_card_has_room_for() -> None:
    found = vf_planning.plan(FLEX, (VfWish(8000),) * 3)
    assert found is not None and found.given == (1, 2)


def test_without_quotas_the_kernel_splits_evenly_and_the_number_meets_the_wish() -> None:
    assert profiles(B60, VfWish()) == {"fair-share": 7}
    [(name, count)] = profiles(B60, VfWish(6000)).items()
    assert name == "fair-share" and 2 <= count < 7
    assert profiles(B60, VfWish(30000)) == {}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wishes", [(VfWish(),), (VfWish(2000),), (VfWish(4000), VfWish(1000)), (VfWish(1000),) * 5, (VfWish(),) * 40])
def test_a_plan_can_be_made_meets_its_wishes_and_has_no_more_vfs_than_the_card(name: str, wishes: tuple[VfWish, ...]) -> None:
    shape = ALL[name]
    found = vf_planning.plan(shape, wishes)
    if found is None:
        return
    assert len(found.sizes) <= shape.maxvfs
    assert all(found.sizes[number - 1].meets(wish) for number, wish in zip(found.given, wishes, strict=False))
    assert found.sizes == vf_planning.sizes(shape, [size.profile for size in found.sizes])
    named = tuple(profile for size in found.sizes if (profile := vf_profiles.find(size.profile)) is not None)
    assert len(named) == len(found.sizes) and layouts.feasible(named, vf_planning._card(shape)) == ()


def test_integrated_gpus_and_cards_that_may_not_be_cut_have_no_plan() -> None:
    assert vf_planning.plan(vf_planning.shape_of(card(1, maxvfs=0)), (VfWish(),)) is None
    assert vf_planning.plan(vf_planning.shape_of(card(1, model="0x4626", memory=0, quotas="none")), (VfWish(8),)) is None
