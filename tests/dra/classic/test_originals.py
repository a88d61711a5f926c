"""What the original driver recorded, as the handle it did not write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.classic import originals
from dra.classic.handle import Handle, Part
from dra.classic.inventory import GpuAllocationState
from dra.errors import ClaimRefused
from dra.names import ClaimUid, NodeName

CARD = "0000:03:00.0-0x56c0"


def vf(index: int, profile: str = "flex170_m4", **changes: Any) -> dict[str, Any]:
    return {"uid": "", "type": "vf", "parentuid": CARD, "vfindex": index, "profile": profile, "memory": 0, "millicores": 0} | changes


def gpu(**changes: Any) -> dict[str, Any]:
    return {"uid": CARD, "type": "gpu", "memory": 14248, "millicores": 1000} | changes


def handle(uid: str, **claims: list[dict[str, Any]]) -> Handle:
    body = {"metadata": {"name": "n1"}, "spec": {"allocatedClaims": {name: {"gpus": gpus} for name, gpus in claims.items()}}}
    return originals.handle_of(msgspec.convert(body, GpuAllocationState), ClaimUid(uid), NodeName("n1"))


def test_whole_and_shared_gpus() -> None:
    assert handle("a", a=[gpu()]) == Handle(version=1, node="n1", parts=(Part(uid=CARD, memory=14248, millicores=1000),))
    assert handle("a", a=[gpu(memory=100, millicores=0)]).shared


def test_vfs_that_are_there() -> None:
    found = handle("a", a=[vf(1, uid="0000:03:00.2-0x56c0")])
    assert found.parts == (Part(uid="0000:03:00.2-0x56c0", parent=CARD, index=2),)


def test_all_vfs_that_are_yet_to_be_made_on_a_card_are_one_layout() -> None:
    claims = {"a": [vf(0), vf(2)], "b": [vf(1, "flex170_m2")]}
    layout = (("flex170_m4", 1), ("flex170_m2", 1), ("flex170_m4", 1))
    assert handle("a", **claims).parts == (Part(uid=CARD, vfs=(1, 3), layout=layout),)
    assert handle("b", **claims).parts == (Part(uid=CARD, vfs=(2,), layout=layout),)


def test_places_that_were_given_twice_are_told_apart() -> None:
    claims = {"a": [vf(0)], "b": [vf(0)], "c": [vf(5)]}
    assert [handle(uid, **claims).parts[0].vfs for uid in "abc"] == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("wanted", "profile"),
    [
        (vf(0, "", memory=3000), "flex170_m4"),
        (vf(0, "", millicores=500), "flex170_m2"),
        (vf(0, ""), "fair-share"),
        (vf(0, "fairShare"), "fair-share"),
        (vf(0, "", memory=10**6), "fair-share"),
        (vf(0, "", memory=1, parentuid="0000:03:00.0-0xffff"), "fair-share"),
    ],
)
def test_a_profile_that_the_original_left_open_is_chosen_as_its_plugin_did(wanted: dict[str, Any], profile: str) -> None:
    assert handle("a", a=[wanted]).parts[0].layout == ((profile, 1),)


def test_a_claim_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(ClaimRefused, match="allocated anew"):
        handle("x", a=[gpu()])
    with pytest.raises(ClaimRefused, match="allocated anew"):
        originals.handle_of(None, ClaimUid("x"), NodeName("n1"))
