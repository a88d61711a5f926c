"""What is awaited before a node is clean, in words, and what the settings mean until then."""

from __future__ import annotations

import msgspec
import pytest

from dra import decommissioning
from dra.carvings import Carving, Uncarve
from dra.claims import Stage
from dra.errors import NotYet
from dra.health.health_settings import Health
from dra.ledger import Ledger, Parked
from dra.names import Bdf, BootId, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Kept, Record
from dra.sriov_settings import Sriov
from dra.vf_profiles import FAIR_SHARE
from tests.fakes.claim_node import gpu

CARD = gpu(3, vfs_now=2)
CUT = Carving(bdf=CARD.bdf, pci_id="0x56c0", profiles=(FAIR_SHARE, FAIR_SHARE), boot_id=BootId("b"))


def held(uid: str, *, name: str = "", stage: Stage = Stage.GRANTED) -> Kept:
    grant = Grant(requests=(), pool=PoolName("n"), device=DeviceName("0000-03-00-0-0x56c0"), bdf=CARD.bdf)
    return Kept(Record(uid=ClaimUid(uid), namespace="d", name=name, grants=(grant,), stage=stage))


def test_claims_and_cards_are_awaited_by_name() -> None:
    ledger = Ledger((), (Parked(b"x", "torn", ClaimUid("lost"), (DeviceName("y"),)),)).apply([held("u1", name="c"), held("u2"), CUT])
    left = decommissioning.awaited(ledger, {CARD.bdf: CARD}, nothing)
    assert left == ("claim d/c", "claim u2", "claim lost, of which the journal is illegible", "2 VFs of 0000:03:00.0")
    assert "claim d/c, claim u2" in decommissioning.sentence(left)


def test_a_claim_that_is_being_released_is_awaited_still() -> None:
    assert decommissioning.awaited(Ledger().apply([held("u", name="c", stage=Stage.RELEASING)]), {}, nothing)


def test_quotas_without_vfs_are_awaited() -> None:
    whole = msgspec.structs.replace(CARD, vfs_now=0)
    [left] = decommissioning.awaited(Ledger().apply([CUT]), {CARD.bdf: whole}, nothing)
    assert "quotas" in left


@pytest.mark.parametrize("gpus", [{}, {CARD.bdf: msgspec.structs.replace(CARD, vfs_now=0, driver="vfio-pci")}])
def test_a_card_that_cannot_have_vfs_is_dropped_from_the_journal(gpus: dict[Bdf, object]) -> None:
    ledger = Ledger().apply([CUT])
    assert decommissioning.awaited(ledger, gpus, lambda _: True) == ()  # type: ignore[arg-type]
    assert decommissioning.last_changes(ledger, gpus, lambda _: True) == [Uncarve(CARD.bdf)]  # type: ignore[arg-type]


def test_nothing_is_dropped_while_something_is_held() -> None:
    with pytest.raises(NotYet, match="claim u"):
        decommissioning.last_changes(Ledger().apply([held("u")]), {}, nothing)


def test_many_are_counted() -> None:
    text = decommissioning.sentence(tuple(f"claim {number}" for number in range(99)))
    assert "and 91 more" in text and len(text) < 1024


def test_settings_make_nothing_new_and_keep_their_profiles() -> None:
    own = {"name": "quarter", "memory": "4Gi"}
    settings = msgspec.convert(
        {"mode": "fixed", "make": "eager", "keep": "keep", "layouts": [{"select": {}, "vfs": "quarter"}], "profiles": [own]}, Sriov
    )
    made = decommissioning.sriov(settings)
    assert (made.mode, made.make, made.keep, made.layouts, made.profiles) == ("off", "lazy", "remove", (), settings.profiles)
    health = msgspec.convert({"period": "5s", "recovery": {"mode": "rebind", "perDay": 3}}, Health)
    assert decommissioning.health(health).recovery.mode == "off" and decommissioning.health(health).period == "5s"


def nothing(_bdf: Bdf) -> bool:
    """No card is gone."""
    return False


def test_a_card_that_the_scan_does_not_know_is_awaited_while_it_is_on_the_bus() -> None:
    ledger = Ledger().apply([CUT])
    [left] = decommissioning.awaited(ledger, {}, nothing)
    assert str(CARD.bdf) in left
    assert decommissioning.awaited(ledger, {}, lambda bdf: bdf == CARD.bdf) == ()
