"""What is left of a node: nothing that is tainted, nothing that a claim has, and never a card beside its own VFs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dra.classic import stock
from dra.classic.handle import Handle, Part
from dra.classic.inventory import GpuAllocationState
from dra.classic.stock import Stock
from tests.fakes.classic_cluster import gpu, vf

CARD = gpu(1)["uid"]
CUT = (("flex170_m4", 4),)


def left(devices: Iterable[dict[str, Any]], *handles: Handle, tainted: Iterable[str] = ()) -> Stock:
    spec = {"allocatableDevices": {one["uid"]: one for one in devices}, "taintedDevices": {uid: {"reason": "hot"} for uid in tainted}}
    return stock.of_node(msgspec.convert({"metadata": {"name": "n"}, "spec": spec}, GpuAllocationState), handles)


def has(*parts: Part, shared: bool = False) -> Handle:
    return Handle(version=1, node="n", parts=parts, shared=shared)


def test_a_card_that_nobody_has_is_untouched() -> None:
    [card] = left([gpu(1)]).cards
    assert card.untouched and (card.memory, card.millicores) == (16384, 1000)


def test_amounts_add_up_and_a_card_with_amounts_is_not_to_be_had_whole() -> None:
    [card] = left([gpu(1)], *[has(Part(uid=CARD, memory=4000, millicores=100), shared=True)] * 2).cards
    assert (card.memory, card.millicores, card.shared, card.whole, card.untouched) == (8384, 800, True, False, False)


def test_a_whole_card_is_gone() -> None:
    [card] = left([gpu(1)], has(Part(uid=CARD, memory=16384, millicores=1000))).cards
    assert card.whole and not card.untouched


def test_a_cut_card_has_the_vfs_that_nobody_holds() -> None:
    [card] = left([gpu(1)], has(Part(uid=CARD, vfs=(1, 3), layout=CUT)), has(Part(uid=CARD, vfs=(4,), layout=CUT))).cards
    assert card.free == (2,) and len(card.sizes) == 4 and not card.untouched


def test_of_a_card_that_the_original_cut_nothing_more_is_given() -> None:
    [card] = left([gpu(1)], has(Part(uid=CARD, vfs=(1,)))).cards
    assert card.whole and not card.free


def test_vfs_that_this_driver_made_and_nobody_holds_leave_the_card_free() -> None:
    [card] = left([gpu(1), vf(1, 0, profile="flex170_m4")]).cards
    assert card.untouched


def test_administrators_vfs_are_offered_and_their_card_is_not() -> None:
    found = left([gpu(1), vf(1, 0), vf(1, 1)])
    assert [one.vf.vfindex for one in found.vfs] == [0, 1] and not found.cards[0].usable
    assert found.vfs[0].card_name == "Flex 170"


def test_what_is_tainted_is_not_there() -> None:
    found = left([gpu(1), vf(1, 0), vf(1, 1), gpu(2)], tainted=[vf(1, 0)["uid"], gpu(2)["uid"]])
    assert [one.vf.vfindex for one in found.vfs] == [1]
    assert [card.usable for card in found.cards] == [False, False]


def test_vfs_of_a_tainted_card_are_tainted() -> None:
    assert not left([gpu(1), vf(1, 0)], tainted=[CARD]).vfs
    [card] = left([gpu(1)], has(Part(uid=CARD, vfs=(1,), layout=CUT)), tainted=[CARD]).cards
    assert card.free == ()


def test_a_tainted_vf_that_this_driver_made_is_not_given() -> None:
    bad = vf(1, 1, profile="flex170_m4")
    [card] = left([gpu(1), bad], has(Part(uid=CARD, vfs=(1,), layout=CUT)), tainted=[bad["uid"]]).cards
    assert card.free == (3, 4)


def test_a_card_stays_cut_while_a_claim_has_a_vf_of_it_that_the_node_does_not_see() -> None:
    found = left([gpu(1)], has(Part(uid=vf(1, 0)["uid"], parent=CARD, index=1)))
    assert not found.cards[0].untouched and not found.cards[0].usable


def test_vfs_that_somebody_makes_of_a_card_that_a_claim_has_are_nobody_elses() -> None:
    for held in (has(Part(uid=CARD, memory=16384, millicores=1000)), has(Part(uid=CARD, memory=1, millicores=1), shared=True)):
        assert not left([gpu(1), vf(1, 0)], held).vfs


def test_claims_on_devices_that_are_gone_are_nobodys_worry() -> None:
    gone = has(Part(uid="0000:99:00.0-0x56c0", vfs=(1,), layout=CUT), Part(uid="0000:98:00.0-0x56c0", memory=1))
    [card] = left([gpu(1)], gone).cards
    assert card.untouched
