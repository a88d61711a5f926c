"""On which terms a device is offered shows in its slice: terms override what the hardware says, and nothing else does."""

from __future__ import annotations

from typing import Any

from dra import slices
from dra.devices import Gpu, Kind
from dra.names import Bdf, NodeName
from dra.pool import SharePolicy
from dra.slices import SliceApi
from dra.terms import Terms

NODE = NodeName("n")
CARD = Gpu(bdf=Bdf("0000:18:00.0"), device="0xe211", memory_bytes=24 << 30)
VF = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=CARD.bdf, vf_index=1, memory_bytes=23 << 29)


def shown(gpu: Gpu, terms: Terms) -> dict[str, Any]:
    desired = slices.desired(NODE, [gpu], terms={gpu.name: terms}, counters={"card": {"vfs": 2}})
    assert desired.dropped == ()
    *_, body = slices.render(desired.pool, SliceApi("v1", (1, 36)), generation=1, owner=None)
    device: dict[str, Any] = body["spec"]["devices"][0]
    return device


def test_without_terms_a_device_is_what_its_hardware_says() -> None:
    plain = shown(CARD, Terms())
    assert plain["attributes"]["profile"] == {"string": ""}
    assert plain["capacity"] == {"memory": {"value": "24576Mi"}, "millicores": {"value": "1k"}}
    assert not plain.keys() & {"consumesCounters", "allowMultipleAllocations"}
    [body] = slices.render(slices.desired(NODE, [CARD]).pool, SliceApi("v1", (1, 36)), generation=1, owner=None)
    assert body["spec"]["devices"] == [plain]


def test_a_vf_is_shown_with_its_profile_its_quota_and_what_it_takes_of_the_card() -> None:
    terms = Terms(profile="b60_n2", memory_bytes=11 << 30, millicores=500, consumes={"card": {"vfs": 1}}, alone=False)
    vf = shown(VF, terms)
    assert vf["attributes"]["profile"] == {"string": "b60_n2"}
    assert vf["capacity"] == {"memory": {"value": "11264Mi"}, "millicores": {"value": "500"}}
    assert vf["consumesCounters"] == [{"counterSet": "card", "counters": {"vfs": {"value": "1"}}}]


def test_of_a_shared_gpu_every_capacity_says_what_a_claim_takes() -> None:
    """One without a policy would be taken whole by the first claim."""
    gpu = shown(CARD, Terms(shares={"shares": SharePolicy(default="1", min="1", max="4", step="1")}))
    assert gpu["allowMultipleAllocations"] is True
    assert gpu["capacity"] == {
        "memory": {"value": "24576Mi", "requestPolicy": {"default": "0"}},
        "millicores": {"value": "1k", "requestPolicy": {"default": "0"}},
        "shares": {"value": "4", "requestPolicy": {"default": "1", "validRange": {"min": "1", "max": "4", "step": "1"}}},
    }


def test_alone_decides_what_stays_without_counters() -> None:
    terms = {CARD.name: Terms(consumes={"card": {"vfs": 2}}, alone=False), VF.name: Terms(consumes={"card": {"vfs": 1}})}
    pool = slices.desired(NODE, [CARD, VF], terms=terms, counters={"card": {"vfs": 2}}).pool
    bare = pool.without_counters()
    assert [device.name for device in bare.devices] == [VF.name] and not bare.devices[0].consumes and not bare.counters
