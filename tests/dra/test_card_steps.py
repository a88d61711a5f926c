"""The next step of a card, from facts alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra import card_steps, vf_quotas
from dra.card_facts import CardFacts, Vf
from dra.card_steps import AwaitKernel, AwaitVfs, Impossible, MakeVfs, Provision, Remember, RemoveVfs, Situation
from dra.carvings import Carving, Uncarve
from dra.names import Bdf, BootId, ClaimUid
from dra.vf_profiles import FAIR_SHARE
from tests.fakes.vf_cards import B60, B60_DEBUGFS, FLEX_170, named

M4 = named("flex170_m4")
LAYOUT = (M4,) * 4
BOOT = BootId("boot-1")
CARVING = Carving(bdf=FLEX_170.bdf, pci_id=FLEX_170.device, profiles=LAYOUT, boot_id=BOOT)
CLEAN = {write.path: write.text for write in vf_quotas.cleared(FLEX_170)}
A = (ClaimUid("a"),)


def vfs(count: int, *, up: bool = True) -> dict[int, Vf]:
    return {index: Vf(Bdf(f"0000:2c:00.{index}"), "i915", up) for index in range(1, count + 1)}


def facts(**changes: Any) -> CardFacts:
    return CardFacts(
        **{"card": FLEX_170, "driver": "i915", "vfs": {}, "autoprobe": True, "quotas": CLEAN, "provisioning": "sys/x"} | changes
    )


def at(**changes: Any) -> Situation:
    fixed = {"facts": facts(), "carving": None, "wanted": LAYOUT, "eager": False, "keep": False, "users": {}, "boot_id": BOOT}
    made = fixed | changes
    return Situation(**{"needed": [index for index in made["users"] if index]} | made)  # type: ignore[attr-defined]


def test_nothing_is_done_for_nobody() -> None:
    assert card_steps.next_step(at()) is None
    assert card_steps.next_step(at(users={0: A})) is None


@pytest.mark.parametrize("reason", [{"users": {2: A}}, {"eager": True}], ids=["claimed", "eager"])
def test_a_card_is_cut_in_order_and_the_journal_hears_of_it_first(reason: dict[str, Any]) -> None:
    assert card_steps.next_step(at(**reason)) == Remember(CARVING)
    step = card_steps.next_step(at(carving=CARVING, **reason))
    assert step == Provision(vf_quotas.quotas(LAYOUT, FLEX_170))
    assert card_steps.next_step(at(carving=CARVING, provisioned=True, **reason)) == MakeVfs(4)
    asleep = facts(vfs=vfs(4, up=False))
    assert isinstance(card_steps.next_step(at(facts=asleep, carving=CARVING, **reason)), AwaitVfs)
    assert card_steps.next_step(at(facts=facts(vfs=vfs(4)), carving=CARVING, **reason)) is None


def test_leftovers_are_cleared_before_anything_is_written() -> None:
    dirty = facts(quotas=CLEAN | {"vf9/gt/lmem_quota": "2097152", "pf/auto_provisioning": "0"})
    step = card_steps.next_step(at(facts=dirty, carving=CARVING, users={1: A}))
    assert isinstance(step, Provision)
    assert [(write.path, write.text) for write in step.writes[:2]] == [("vf9/gt/lmem_quota", "0"), ("pf/auto_provisioning", "1")]
    assert step.writes[2:] == vf_quotas.quotas(LAYOUT, FLEX_170)


def test_a_card_nobody_uses_any_more_is_made_whole_and_forgotten_last() -> None:
    carved = facts(vfs=vfs(4))
    assert card_steps.next_step(at(facts=carved, carving=CARVING)) == RemoveVfs()
    left = facts(quotas=CLEAN | {"vf1/gt/lmem_quota": "4227858432", "pf/auto_provisioning": "0"})
    step = card_steps.next_step(at(facts=left, carving=CARVING))
    assert isinstance(step, Provision) and step.writes[-1].path == "pf/auto_provisioning"
    assert card_steps.next_step(at(carving=CARVING)) == Remember(Uncarve(FLEX_170.bdf))
    assert card_steps.next_step(at()) is None


def test_vfs_that_are_kept_stay_until_the_settings_want_others() -> None:
    carved = facts(vfs=vfs(4))
    assert card_steps.next_step(at(facts=carved, carving=CARVING, keep=True)) is None
    assert card_steps.next_step(at(facts=carved, carving=CARVING, keep=True, wanted=())) == RemoveVfs()
    assert card_steps.next_step(at(facts=carved, carving=CARVING, keep=True, wanted=LAYOUT[:2])) == RemoveVfs()
    assert card_steps.next_step(at(facts=carved, carving=CARVING, keep=True, users={0: A})) == RemoveVfs()


def test_vfs_in_use_stay_whatever_the_settings_want() -> None:
    carved = facts(vfs=vfs(4))
    for wanted in ((), LAYOUT[:2]):
        assert card_steps.next_step(at(facts=carved, carving=CARVING, wanted=wanted, users={3: A})) is None


@pytest.mark.parametrize("count", [1, 3, 5])
def test_vfs_that_somebody_else_made_are_never_touched(count: int) -> None:
    foreign = facts(vfs=vfs(count))
    for users in ({}, {1: A}, {0: A}):
        for eager in (False, True):
            assert card_steps.next_step(at(facts=foreign, users=users, eager=eager)) is None
    later = at(facts=foreign, carving=CARVING, users={1: A}, awaited=True)
    assert card_steps.next_step(later) == Remember(Uncarve(FLEX_170.bdf))


def test_vfs_of_another_boot_are_somebody_elses() -> None:
    old = msgspec.structs.replace(CARVING, boot_id=BootId("boot-0"))
    assert card_steps.next_step(at(facts=facts(vfs=vfs(4)), carving=old)) == Remember(Uncarve(FLEX_170.bdf))


def test_after_a_reboot_claims_get_the_layout_that_they_had() -> None:
    old = msgspec.structs.replace(CARVING, boot_id=BootId("boot-0"))
    step = card_steps.next_step(at(carving=old, wanted=(), users={4: A}))
    assert step == Remember(CARVING)


def test_vfs_in_the_making_are_waited_for() -> None:
    half = facts(vfs=vfs(2))
    assert card_steps.next_step(at(facts=half, carving=CARVING, users={1: A})) == AwaitKernel()


def test_what_failed_is_taken_back_whoever_waits_for_it() -> None:
    left = facts(quotas=CLEAN | {"vf1/gt/lmem_quota": "4227858432"})
    step = card_steps.next_step(at(facts=left, carving=CARVING, users={1: A}, given_up=True))
    assert isinstance(step, Provision) and all(write.text in ("0", "1") for write in step.writes)
    assert card_steps.next_step(at(carving=CARVING, users={1: A}, given_up=True)) == Remember(Uncarve(FLEX_170.bdf))


def test_another_card_in_the_slot_was_not_cut() -> None:
    other = msgspec.structs.replace(CARVING, pci_id="0x56c1")
    assert card_steps.next_step(at(carving=other)) == Remember(Uncarve(FLEX_170.bdf))


@pytest.mark.parametrize(
    ("situation", "said"),
    [
        (at(users={9: A}, carving=CARVING), "there is no VF 9"),
        (at(users={1: A}, wanted=()), "the settings do not say how to make them"),
        (at(users={5: A}, facts=facts(vfs=vfs(2))), "VF 5 is not there"),
        (at(users={1: A}, facts=facts(driver=None)), "bound to no driver"),
        (at(users={1: A}, facts=facts(card=B60_DEBUGFS, driver="xe", quotas={}), wanted=(named("b60_n4"),) * 4), "only fair-share"),
    ],
    ids=["beyond-the-layout", "no-layout", "foreign", "no-driver", "infeasible"],
)
def test_what_cannot_be_is_said(situation: Situation, said: str) -> None:
    step = card_steps.next_step(situation)
    assert isinstance(step, Impossible) and said in step.why


def test_quotas_are_read_only_where_they_matter() -> None:
    unread = facts(quotas=None)
    assert card_steps.next_step(at(facts=unread, carving=CARVING, users={1: A})) == card_steps.LookAtQuotas()
    assert card_steps.next_step(at(facts=unread, carving=CARVING)) == card_steps.LookAtQuotas()
    assert card_steps.next_step(at(facts=unread, carving=CARVING, users={1: A}, provisioned=True)) == MakeVfs(4)
    assert card_steps.next_step(at(facts=facts(vfs=vfs(4), quotas=None), carving=CARVING, users={1: A})) is None


def test_for_a_claim_that_is_going_vfs_stay_but_are_not_made() -> None:
    carved = facts(vfs=vfs(4))
    assert card_steps.next_step(at(facts=carved, carving=CARVING, users={1: A}, needed=())) is None
    assert card_steps.next_step(at(users={1: A}, needed=())) is None
    assert card_steps.next_step(at(carving=CARVING, users={1: A}, needed=())) == Remember(Uncarve(FLEX_170.bdf))


def test_a_fair_share_needs_no_quotas() -> None:
    layout = (FAIR_SHARE,) * 6
    xe = facts(card=B60, driver="xe", quotas={})
    carving = Carving(bdf=B60.bdf, pci_id=B60.device, profiles=layout, boot_id=BOOT)
    assert card_steps.next_step(at(facts=xe, carving=carving, wanted=layout, users={1: A})) == MakeVfs(6)
    no_probe = msgspec.structs.replace(xe, autoprobe=False)
    assert card_steps.next_step(at(facts=no_probe, carving=carving, wanted=layout, users={1: A})) == card_steps.Autoprobe()


M2 = named("flex170_m2")


def promised(**changes: Any) -> Situation:
    return at(**{"promised": True, "users": {1: A}} | changes)


def test_a_card_is_cut_as_claims_rely_on_and_vfs_that_nobody_has_go_for_it() -> None:
    assert card_steps.next_step(promised()) == Remember(CARVING)
    there = facts(vfs=vfs(4))
    assert card_steps.next_step(promised(facts=there, carving=CARVING)) is None
    assert card_steps.next_step(promised(facts=there, carving=CARVING, wanted=(M2, M2))) == RemoveVfs()
    step = card_steps.next_step(promised(carving=CARVING, wanted=(M2, M2)))
    assert isinstance(step, Remember) and isinstance(step.change, Carving) and step.change.layout == (M2, M2)


def test_the_places_of_profiles_matter_to_claims() -> None:
    mixed = msgspec.structs.replace(CARVING, profiles=(M2, M4, M4))
    there = facts(vfs=vfs(3))
    assert card_steps.next_step(promised(facts=there, carving=mixed, wanted=(M4, M2, M4))) == RemoveVfs()
    assert card_steps.next_step(at(facts=there, carving=mixed, wanted=(M4, M2, M4), eager=True)) is None


def test_what_a_name_means_may_change_under_claims_without_their_vfs_going() -> None:
    smaller = msgspec.structs.replace(M4, memory_bytes=1 << 30)
    assert card_steps.next_step(promised(facts=facts(vfs=vfs(4)), carving=CARVING, wanted=(smaller,) * 4)) is None


def test_vfs_of_somebody_else_are_no_ones_promise() -> None:
    step = card_steps.next_step(promised(facts=facts(vfs=vfs(4))))
    assert isinstance(step, Impossible) and "somebody else made" in step.why and "4 × flex170_m4" in step.why
