"""From a handle to grants, without effects."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from dra.classic import grants
from dra.classic.handle import Handle, Part
from dra.devices import Gpu, Inventory, Kind, VfPlaces
from dra.errors import ClaimRefused, NotYet
from dra.names import Bdf, ClaimUid, NodeName
from dra.records import Grant

UID, NODE = ClaimUid("0a1b2c3d-0000-4000-8000-000000000001"), NodeName("n1")
PF = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56c0", max_vfs_usable=31, vf_places=VfPlaces(1, 1, "0x56c0"))
VF = Gpu(bdf=Bdf("0000:04:00.2"), device="0x56c0", kind=Kind.VF, parent=Bdf("0000:04:00.0"), vf_index=2)
CARD = "0000:03:00.0-0x56c0"
LAYOUT = (("flex170_m4", 3), ("flex170_m8", 2))
OLD_PARSER = re.compile(r"intel\.com/[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]=[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
"""Vendor, class without dots, and device, as kubelets up to 1.30 want CDI names."""


def none_of(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("nobodys")]


def made(*parts: Part, node: str = NODE, **fields: bool) -> tuple[Grant, ...]:
    handle = Handle(version=1, node=node, parts=parts, **fields)
    return grants.grants(handle, UID, NODE, Inventory((PF, VF)), unknown_profiles=none_of)


def test_a_whole_gpu_is_held_alone_and_a_shared_one_with_others() -> None:
    (alone,) = made(Part(uid=CARD, memory=100, millicores=1000))
    assert (alone.device, alone.bdf, alone.exclusive, alone.pool) == ("0000-03-00-0-0x56c0", PF.bdf, True, "n1")
    (shared,) = made(Part(uid=CARD, memory=100, millicores=100), shared=True)
    assert shared.share_id == UID and not shared.exclusive


def test_vfs_are_told_by_their_numbers_with_the_layout_that_all_rely_on() -> None:
    found = made(Part(uid=CARD, vfs=(2, 5), layout=LAYOUT))
    assert [(one.bdf, one.parent, one.layout) for one in found] == [
        ("0000:03:00.2", PF.bdf, LAYOUT),
        ("0000:03:00.5", PF.bdf, LAYOUT),
    ]


def test_a_vf_of_an_administrator_is_itself() -> None:
    (one,) = made(Part(uid="0000:04:00.2-0x56c0", parent="0000:04:00.0-0x56c0", index=2))
    assert (one.bdf, one.parent, one.layout) == (VF.bdf, VF.parent, ())
    with pytest.raises(ClaimRefused, match="is not VF 1"):
        made(Part(uid="0000:04:00.2-0x56c0", parent="0000:04:00.0-0x56c0", index=1))


def test_a_monitor_looks_at_everything() -> None:
    assert [(one.bdf, one.admin, one.monitor) for one in made(monitor=True)] == [(PF.bdf, True, True), (VF.bdf, True, True)]
    assert len(made(monitor=True, node="")) == 2


@pytest.mark.parametrize(
    "part",
    [
        Part(uid=CARD, vfs=(6,), layout=LAYOUT),
        Part(uid=CARD, vfs=(0,), layout=LAYOUT),
        Part(uid=CARD, vfs=(1,)),
        Part(uid=CARD, vfs=(1,), layout=(("nobodys", 1),)),
        Part(uid="nonsense"),
        Part(uid=CARD, parent="nonsense", index=1),
    ],
)
def test_what_cannot_be_is_refused(part: Part) -> None:
    with pytest.raises(ClaimRefused):
        made(part)


def test_another_nodes_handle_is_refused() -> None:
    with pytest.raises(ClaimRefused, match="n2"):
        made(Part(uid=CARD), node="n2")
    with pytest.raises(ClaimRefused):
        made(monitor=True, node="n2")


def test_a_card_that_is_to_be_cut_has_to_be_there() -> None:
    with pytest.raises(NotYet):
        made(Part(uid="0000:09:00.0-0x56c0", vfs=(1,), layout=LAYOUT))


def test_cdi_names_are_such_that_kubelets_up_to_1_30_take_them() -> None:
    found = (*made(Part(uid=CARD)), *made(Part(uid=CARD, vfs=(1,), layout=LAYOUT)), *made(monitor=True))
    assert all(OLD_PARSER.fullmatch(one) for grant in found for one in grant.cdi_ids)
