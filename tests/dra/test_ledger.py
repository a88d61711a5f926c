"""The overlap guard: what may be held at once and what may not."""

from __future__ import annotations

import msgspec

from dra import ledger as ledgers
from dra.claims import Stage
from dra.ledger import Ledger
from dra.names import Bdf, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Kept, Record

PF, VF1, VF2 = Bdf("0000:18:00.0"), Bdf("0000:18:00.1"), Bdf("0000:18:00.2")


def grant(bdf: Bdf, *, parent: Bdf | None = None, admin: bool = False, share: str | None = None) -> Grant:
    name = DeviceName(bdf.replace(":", "-").replace(".", "-") + "-0xe211")
    return Grant(requests=("gpu",), pool=PoolName("n"), device=name, bdf=bdf, parent=parent, admin=admin, share_id=share)


def holding(*grants: Grant) -> Ledger:
    uid = ClaimUid("holder")
    return Ledger({uid: Kept(Record(uid=uid, namespace="d", name="holder", grants=grants))})


def blocked(ledger: Ledger, *wanted: Grant) -> bool:
    return ledger.held_by(ClaimUid("newcomer"), wanted) is not None


def test_a_held_device_is_refused_and_the_refusal_names_holder_and_device() -> None:
    assert holding(grant(PF)).held_by(ClaimUid("newcomer"), [grant(PF)]) == ("holder", "0000-18-00-0-0xe211")


def test_a_claim_never_stands_in_its_own_way() -> None:
    assert holding(grant(PF)).held_by(ClaimUid("holder"), [grant(PF)]) is None


def test_admin_access_neither_holds_nor_is_held_up() -> None:
    assert not blocked(holding(grant(PF, admin=True)), grant(PF))
    assert not blocked(holding(grant(PF)), grant(PF, admin=True))


def test_two_shares_of_one_device_get_along_but_not_with_a_whole() -> None:
    assert not blocked(holding(grant(PF, share="a")), grant(PF, share="b"))
    assert blocked(holding(grant(PF, share="a")), grant(PF))
    assert blocked(holding(grant(PF)), grant(PF, share="b"))


def test_a_pf_and_its_vfs_exclude_each_other_and_vfs_do_not() -> None:
    assert blocked(holding(grant(PF)), grant(VF1, parent=PF))
    assert blocked(holding(grant(VF1, parent=PF)), grant(PF))
    assert not blocked(holding(grant(VF1, parent=PF)), grant(VF2, parent=PF))


def test_in_use_lists_holders_only() -> None:
    used = holding(grant(PF), grant(VF1, admin=True)).in_use()
    assert used == {grant(PF).device: ["holder"]}


def test_a_card_is_not_cut_in_two_ways() -> None:
    def of(bdf: Bdf, *layout: tuple[str, int]) -> Grant:
        return msgspec.structs.replace(grant(bdf, parent=PF), layout=layout)

    held = holding(of(VF1, ("m4", 4)))
    assert not blocked(held, of(VF2, ("m4", 4)))
    assert blocked(held, of(VF2, ("m2", 2))) and blocked(held, grant(VF2, parent=PF))
    assert blocked(holding(grant(VF1, parent=PF)), of(VF2, ("m4", 4)))
    assert ledgers.layouts(held) == {PF: (("m4", 4),)}
    going = msgspec.structs.replace(next(iter(held.records())), stage=Stage.RELEASING)
    assert ledgers.layouts(Ledger({going.uid: Kept(going)})) == {}
