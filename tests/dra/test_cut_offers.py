"""A card and its VFs, offered side by side: never both to be had, the same before and after the VFs are made."""

from __future__ import annotations

import msgspec
import pytest

from dra import cut_offers, discovery
from dra.card_facts import read
from dra.carvings import Carving
from dra.devices import Gpu, Inventory, Kind, State
from dra.layouts import Layout
from dra.names import Bdf, BootId
from dra.offer import CutCard, Sight, offer
from dra.vf_profiles import FAIR_SHARE
from tests.fakes import machines
from tests.fakes.vf_cards import named

BOOT = BootId("boot-1")
M4 = (named("flex170_m4"),) * 4
KERNEL = machines.kernel("server-8x-flex170")
PF = discovery.scan(KERNEL).by_bdf()[Bdf("0000:4d:00.0")]
CARD = read(KERNEL, PF).card
CARVING = Carving(bdf=PF.bdf, pci_id=PF.device, profiles=M4, boot_id=BOOT)
CUT = msgspec.structs.replace(PF, vfs_now=4, publishable=False)


def test_every_vf_takes_its_part_and_the_card_takes_all() -> None:
    made = cut_offers.offer(PF, CARD, M4, fault=None, without_counters="vfs")
    assert [gpu.bdf for gpu in made.gpus] == [PF.bdf, *(f"0000:4d:00.{index}" for index in range(1, 5))]
    [(group, total)] = made.counters.items()
    assert made.terms[PF.name].consumes == {group: total} and not made.terms[PF.name].alone
    parts = [made.terms[gpu.name].consumes[group] for gpu in made.gpus[1:]]
    assert {name: sum(part[name] for part in parts) for name in total} == dict(total)
    assert {gpu.kind for gpu in made.gpus[1:]} == {Kind.VF} and made.terms[made.gpus[1].name].profile == "flex170_m4"


def test_making_the_vfs_changes_nothing_that_is_published() -> None:
    before = offer(
        Sight(Inventory((PF,)), {PF.bdf: CutCard(CARD, M4, None, None)}, boot_id=BOOT), remembered={}, in_use=(), selected=lambda g: True
    )
    vfs = tuple(
        msgspec.structs.replace(cut_offers.planned(PF, index, 1 << 30), card=10 + index, render=140 + index) for index in range(1, 5)
    )
    after = offer(
        Sight(Inventory((CUT, *vfs)), {PF.bdf: CutCard(CARD, M4, CARVING, None)}, boot_id=BOOT),
        remembered={},
        in_use={vfs[0].name},
        selected=lambda g: True,
    )
    assert after == before


@pytest.mark.parametrize(
    ("wanted", "carving", "pf", "used", "layout"),
    [
        (M4, None, PF, (), M4),
        ((), CARVING, CUT, (), ()),
        ((), CARVING, CUT, (2,), M4),
        (M4[:2], CARVING, CUT, (2,), M4),
        (M4[:2], CARVING, CUT, (), M4[:2]),
        (M4, None, CUT, (), None),
        (M4, msgspec.structs.replace(CARVING, boot_id=BootId("boot-0")), CUT, (), None),
        (M4, msgspec.structs.replace(CARVING, profiles=M4[:3]), CUT, (), None),
    ],
)
def test_the_layout_in_force(wanted: Layout, carving: Carving | None, pf: Gpu, used: tuple[int, ...], layout: Layout | None) -> None:
    assert cut_offers.in_force(wanted, carving, pf, BOOT, used) == layout


def test_vfs_that_cannot_be_made_are_not_offered() -> None:
    made = cut_offers.offer(PF, CARD, M4, fault="no", without_counters="vfs")
    assert (made.gpus, made.terms, made.counters, len(made.planned)) == ((PF,), {}, {}, 4)
    assert len(cut_offers.offer(CUT, CARD, M4, fault="VF 3 has no nodes", without_counters="vfs").gpus) == 5


def test_vfs_of_others_are_offered_as_they_are_and_the_card_is_not() -> None:
    theirs = tuple(cut_offers.planned(PF, index, None) for index in (1, 2))
    pf = msgspec.structs.replace(PF, vfs_now=2, publishable=False, why="2 VFs are enabled")
    made = offer(
        Sight(Inventory((pf, *theirs)), {PF.bdf: CutCard(CARD, M4, None, None)}, boot_id=BOOT),
        remembered={},
        in_use=(),
        selected=lambda g: True,
    )
    assert (made.gpus, made.terms, dict(made.withheld)) == (theirs, {}, {PF.name: "2 VFs are enabled"})


@pytest.mark.parametrize(("wanted", "state"), [((), State.HEALTHY), (M4[:2], State.HEALTHY), (M4, State.WEDGED)])
def test_vfs_of_ours_that_nothing_has_in_force_are_not_taken_for_an_administrators(wanted: Layout, state: State) -> None:
    vfs = tuple(cut_offers.planned(PF, index, None) for index in range(1, 5))
    pf = msgspec.structs.replace(CUT, state=state, why="why")
    sight = Sight(Inventory((pf, *vfs)), {PF.bdf: CutCard(CARD, wanted, CARVING, None)}, boot_id=BOOT)
    made = offer(sight, remembered={}, in_use=(), selected=lambda g: True)
    going = {vf.name for vf in vfs} - set(made.profiles)
    assert going and {name: why for name, why in made.withheld.items() if name != PF.name} == dict.fromkeys(going, "about to be taken away")
    assert not going & {gpu.name for gpu in made.gpus}


def test_a_sick_card_offers_nothing_of_itself() -> None:
    sick = msgspec.structs.replace(PF, state=State.WEDGED, publishable=False, why="wedged")
    made = offer(
        Sight(Inventory((sick,)), {PF.bdf: CutCard(CARD, M4, None, None)}, boot_id=BOOT), remembered={}, in_use=(), selected=lambda g: True
    )
    assert (made.gpus, dict(made.withheld)) == ((), {PF.name: "wedged"})


def test_names_of_planned_vfs_are_those_that_they_will_have() -> None:
    vfs = [gpu for gpu in discovery.scan(KERNEL).gpus if gpu.kind is Kind.VF]
    assert vfs
    for vf in vfs:
        parent = discovery.scan(KERNEL).by_bdf()[Bdf(str(vf.parent))]
        assert vf.vf_index is not None and parent.vf_places is not None
        assert cut_offers.vf_name(parent, vf.vf_index) == vf.name
        assert parent.vf_places.index(parent.bdf, vf.bdf) == vf.vf_index


def test_a_fair_share_says_how_much_it_will_be_at_least() -> None:
    made = cut_offers.offer(PF, CARD, (FAIR_SHARE,) * 2, fault=None, without_counters="card")
    assert made.terms[PF.name].alone and not made.terms[made.gpus[1].name].alone
    assert made.terms[made.gpus[1].name].millicores == 500 and (made.gpus[1].memory_bytes or 0) > 6 << 30
