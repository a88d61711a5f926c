"""An offer in the words of GpuAllocationState; whole machines are in tests/scenarios/test_classic_claims.py."""

from __future__ import annotations

import msgspec

from dra import offer
from dra.carvings import Carving
from dra.classic import allocatable
from dra.classic.inventory import AllocatableGpu
from dra.devices import Gpu, Inventory, Kind, State, VfPlaces
from dra.layouts import Layout
from dra.names import Bdf, BootId, DeviceName
from dra.offer import CutCard, Sight
from dra.vf_cards import Card
from tests.fakes.vf_cards import B60, B60_BULK, B60_DEBUGFS, FLEX_170, named

BOOT = BootId("boot-1")
M4 = (named("flex170_m4"),) * 4


def pf(card: Card, **changes: object) -> Gpu:
    fixed: dict[str, object] = {
        "bdf": card.bdf,
        "device": card.device,
        "driver": "i915",
        "memory_bytes": card.memory_bytes,
        "max_vfs_usable": card.max_vfs,
        "vf_places": VfPlaces(1, 1, card.device),
    }
    return Gpu(**fixed | changes)  # type: ignore[arg-type]


def vf(of: Gpu, index: int, **changes: object) -> Gpu:
    assert of.vf_places is not None
    fixed: dict[str, object] = {"kind": Kind.VF, "parent": of.bdf, "vf_index": index, "driver": "i915"}
    return Gpu(bdf=of.vf_places.bdf(of.bdf, index), device=of.device, **fixed | changes)  # type: ignore[arg-type]


def told(*gpus: Gpu, cards: tuple[CutCard, ...] = (), on_demand: bool = True, in_use: tuple[str, ...] = ()) -> dict[str, AllocatableGpu]:
    sight = Sight(Inventory(gpus), {card.card.bdf: card for card in cards}, boot_id=BOOT)
    held = tuple(DeviceName(name) for name in in_use)
    made = offer.offer(sight, remembered={}, in_use=held, selected=lambda gpu: True)
    return {str(uid): one for uid, one in allocatable.allocatable(made, sight, on_demand=on_demand).items()}


def carved(card: Card, layout: Layout) -> CutCard:
    return CutCard(card, layout, Carving(bdf=card.bdf, pci_id=card.device, profiles=layout, boot_id=BOOT), None)


def test_which_files_take_quotas_is_told() -> None:
    for card, quotas, bulk in ((FLEX_170, "prelim", False), (B60, "admin", False), (B60_BULK, "admin", True), (B60_DEBUGFS, "none", False)):
        (one,) = told(pf(card), cards=(CutCard(card, (), None, None),)).values()
        assert (one.quotas, one.bulk_quota, one.maxvfs, one.ecc) == (quotas, bulk, card.max_vfs, False)


def test_vfs_that_are_there_are_told_with_their_profile_beside_their_card() -> None:
    card = pf(FLEX_170, vfs_now=4)
    found = told(card, *(vf(card, index) for index in (1, 2, 3, 4)), cards=(carved(FLEX_170, M4),))
    assert len(found) == 5
    second = found["0000:2c:00.2-0x56c0"]
    assert (second.profile, second.vfindex, second.millicores, second.parentuid) == ("flex170_m4", 1, 250, "0000:2c:00.0-0x56c0")
    assert second.memory > 0 and found["0000:2c:00.0-0x56c0"].maxvfs == 31


def test_vfs_that_are_only_planned_are_nobodys_to_give() -> None:
    assert list(told(pf(FLEX_170), cards=(carved(FLEX_170, M4),))) == ["0000:2c:00.0-0x56c0"]


def test_a_card_with_vfs_of_an_administrator_is_told_by_them_alone() -> None:
    card = pf(FLEX_170, vfs_now=2, publishable=False, why="has VFs")
    found = told(card, vf(card, 1), vf(card, 2, memory_bytes=1 << 30), cards=(CutCard(FLEX_170, (), None, None),))
    assert {uid: (one.profile, one.millicores, one.memory) for uid, one in found.items()} == {
        "0000:2c:00.1-0x56c0": ("", 500, 0),
        "0000:2c:00.2-0x56c0": ("", 500, 1024),
    }


def test_a_vf_whose_card_cannot_be_told_is_never_taken_for_a_gpu() -> None:
    card = pf(FLEX_170)
    lost = vf(card, 1, parent=None)
    placeless = vf(card, 2, vf_index=None)
    assert list(told(card, lost, placeless)) == ["0000:2c:00.0-0x56c0"]


def test_what_is_broken_or_held_by_a_broken_claim_is_left_out() -> None:
    sick = pf(FLEX_170, state=State.WEDGED, publishable=False)
    assert told(sick) == {} and told(sick, in_use=(sick.name,)) == {}


def test_without_leave_nothing_may_be_cut_and_cards_of_the_settings_are_their_vfs() -> None:
    (one,) = told(pf(FLEX_170), on_demand=False).values()
    assert one.maxvfs == 0
    fixed = CutCard(FLEX_170, M4, None, None)
    assert told(pf(FLEX_170), cards=(fixed,), on_demand=False) == {}
    (whole,) = told(pf(FLEX_170), cards=(msgspec.structs.replace(fixed, fault="ENOSPC"),), on_demand=False).values()
    assert whole.maxvfs == 0


def test_a_card_of_which_nothing_is_read_is_whole() -> None:
    (one,) = told(Gpu(bdf=Bdf("0000:03:00.0"), device="0x9a49", integrated=True, driver="i915")).values()
    assert (one.memory, one.maxvfs, one.quotas) == (0, 0, "none")
