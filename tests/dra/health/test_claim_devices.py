"""What a claim is told of its devices."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.carvings import Carving
from dra.devices import Gpu, Kind
from dra.health import claim_devices
from dra.health.told import DeviceHealth, Level
from dra.ledger import Ledger
from dra.names import Bdf, BootId, ClaimUid, PoolName
from dra.records import Grant, Record
from dra.vf_profiles import VfProfile

CARD = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56c0", driver="i915")
VF = Gpu(bdf=Bdf("0000:03:00.2"), device="0x56c0", driver="vfio-pci", kind=Kind.VF, parent=CARD.bdf, vf_index=2)
OTHER = {"driver": "nic.example.com", "pool": "p", "device": "d", "conditions": [{"type": "Ready", "status": "True"}]}


def grant(gpu: Gpu, **more: Any) -> Grant:
    return Grant(requests=("gpu",), pool=PoolName("node1"), device=gpu.name, bdf=gpu.bdf, parent=gpu.parent, **more)


def record(*grants: Grant) -> Record:
    return Record(uid=ClaimUid("u"), namespace="ns", name="c", grants=grants)


def claim(*grants: Grant, devices: list[Any] | None = None) -> dict[str, Any]:
    results = [
        {"request": "gpu", "driver": "gpu.intel.com", "pool": "node1", "device": each.device}
        | ({"shareID": each.share_id} if each.share_id else {})
        for each in grants
    ]
    return {"metadata": {"uid": "u"}, "status": {"allocation": {"devices": {"results": results}}, "devices": devices or []}}


def told(
    *grants: Grant,
    of: dict[str, Any] | None = None,
    gpus: tuple[Gpu, ...] = (CARD,),
    now: float = 0,
    ledger: Ledger | None = None,
    **health: Any,
) -> list[dict[str, Any]]:
    """The entries for a claim with these grants."""
    return claim_devices.entries(
        record(*grants),
        claim(*grants) if of is None else of,
        ledger=ledger or Ledger(),
        gpus={gpu.name: gpu for gpu in gpus},
        told={CARD.name: health["card"]} if health else {},
        now=now,
    )


def ready(entries: list[dict[str, Any]]) -> dict[str, str]:
    [entry] = entries
    [condition] = entry["conditions"]
    assert isinstance(condition, dict)
    return condition


def test_a_whole_card() -> None:
    assert told(grant(CARD)) == [
        {
            "driver": "gpu.intel.com",
            "pool": "node1",
            "device": "0000-03-00-0-0x56c0",
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "DeviceReady", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"}
            ],
            "data": {"pciAddress": "0000:03:00.0", "pciId": "0x56c0", "driver": "i915"},
        }
    ]


def test_a_vf_of_a_card_that_was_cut_is_lent_to_a_virtual_machine() -> None:
    profiles = (VfProfile(name="flex170_m1"), VfProfile(name="flex170_m2"))
    carving = Carving(bdf=CARD.bdf, pci_id="0x56c0", profiles=profiles, boot_id=BootId("b"))
    [entry] = told(grant(VF, driver="vfio-pci"), gpus=(CARD, VF), ledger=Ledger(carvings={CARD.bdf: carving}))
    assert entry["data"] == {
        "pciAddress": VF.bdf,
        "pciId": "0x56c0",
        "driver": "vfio-pci",
        "pfPciAddress": CARD.bdf,
        "vfIndex": 2,
        "profile": "flex170_m2",
    }


def test_shares_and_an_administrators_look_are_told() -> None:
    [entry] = told(grant(CARD, share_id="s", admin=True))
    assert (entry["shareID"], entry["data"]["adminAccess"]) == ("s", True)


@pytest.mark.parametrize(
    ("health", "status", "reason", "message"),
    [
        (DeviceHealth(Level.OK, since=5), "True", "DeviceReady", ""),
        (DeviceHealth(Level.DEGRADED, "hot"), "True", "Degraded", "hot"),
        (DeviceHealth(Level.FAILED, "off the bus"), "False", "Failed", "off the bus"),
        (DeviceHealth(Level.FAILED, "é" * 600), "False", "Failed", "é" * 512),
        (DeviceHealth(Level.UNKNOWN, "hangs"), "Unknown", "HealthUnknown", "hangs"),
    ],
)
def test_the_condition_follows_the_devices_health(health: DeviceHealth, status: str, reason: str, message: str) -> None:
    condition = ready(told(grant(CARD), card=health))
    assert (condition["status"], condition["reason"], condition["message"]) == (status, reason, message)


def test_the_time_is_that_of_the_status_and_not_of_its_reason() -> None:
    one = grant(CARD)
    first = told(one, now=10)
    hot = told(one, of=claim(one, devices=first), card=DeviceHealth(Level.DEGRADED, "hot"), now=20)
    assert (ready(hot)["reason"], ready(hot)["lastTransitionTime"]) == ("Degraded", "1970-01-01T00:00:10Z")
    failed = told(one, of=claim(one, devices=hot), card=DeviceHealth(Level.FAILED, "burnt"), now=30)
    assert (ready(failed)["status"], ready(failed)["lastTransitionTime"]) == ("False", "1970-01-01T00:00:30Z")


def test_what_is_not_there_yet_is_told_of_when_it_is() -> None:
    assert told(grant(VF, driver="vfio-pci"), gpus=(CARD,)) == []
    unbound = msgspec.structs.replace(VF, driver="i915")
    assert told(grant(VF, driver="vfio-pci"), gpus=(CARD, unbound)) == []
    assert len(told(grant(VF, driver="vfio-pci"), gpus=(CARD, VF))) == 1


def test_what_was_told_of_and_is_gone_is_not_ready_and_keeps_its_data() -> None:
    one = grant(CARD)
    first = told(one)
    gone = told(one, of=claim(one, devices=first), gpus=())
    assert (ready(gone)["status"], ready(gone)["reason"]) == ("False", "Absent")
    assert gone[0]["data"] == first[0]["data"]
    vf = grant(VF, driver="vfio-pci")
    lent = told(vf, gpus=(VF,))
    taken = told(vf, of=claim(vf, devices=lent), gpus=(msgspec.structs.replace(VF, driver="i915"),))
    assert (ready(taken)["reason"], ready(taken)["message"]) == ("NotBound", "0000:03:00.2 is bound to i915, not to vfio-pci")


def test_what_the_claim_was_not_allocated_is_not_told() -> None:
    assert told(grant(CARD), of=claim()) == []
    assert told(grant(CARD), of={"metadata": {}, "spec": {}}) == []
    assert told(grant(CARD, share_id="s"), of=claim(grant(CARD, share_id="t"))) == []


def test_a_claim_that_says_so_already_needs_nothing() -> None:
    one = grant(CARD)
    entries = told(one, now=10)
    with_others = [OTHER, {**entries[0], "conditions": [{"type": "Nice", "status": "True"}, *entries[0]["conditions"]]}]
    assert claim_devices.stand(claim(one, devices=with_others), told(one, of=claim(one, devices=with_others), now=99))
    assert not claim_devices.stand(claim(one, devices=[OTHER]), entries)
    assert not claim_devices.stand(claim(one, devices=entries), told(one, of=claim(one, devices=entries), card=DeviceHealth(Level.FAILED)))


TERM = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}


@pytest.mark.parametrize(
    ("terms", "own"),
    [
        ([TERM], True),
        ([TERM, TERM], False),
        ([], False),
        (None, False),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node2"]}]}], False),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1", "node2"]}]}], False),
        ([TERM | {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}], False),
        ([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}], False),
    ],
)
def test_a_claim_is_of_this_node_if_its_allocation_names_it_and_nothing_else(terms: Any, own: bool) -> None:
    selector = {"nodeSelector": {"nodeSelectorTerms": terms}} if terms is not None else {}
    assert claim_devices.is_of_node({"status": {"allocation": selector}}, "node1") is own
