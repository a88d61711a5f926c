"""Whether a classic claim is still the one a node prepared."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.classic import handle, standing
from dra.classic.handle import Handle, Part
from dra.kube.classic import ResourceClaim
from dra.names import Bdf, ClaimUid, DeviceName, NodeName, PoolName
from dra.records import Grant, Record

NODE = NodeName("n1")
VF = Grant(requests=(), pool=PoolName("n1"), device=DeviceName("d"), bdf=Bdf("0000:03:00.1"), parent=Bdf("0000:03:00.0"))
RECORD = Record(uid=ClaimUid("u"), namespace="default", name="c", grants=(VF,))


def why(data: str | None, *, uid: str = "u", reserved: bool = True, node: str = "") -> str | None:
    allocation: dict[str, Any] | None = None
    if data is not None:
        allocation = {"resourceHandles": [{"driverName": "gpu.resource.intel.com", "data": data}] if data else []}
        if node:
            terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
            allocation["availableOnNodes"] = {"nodeSelectorTerms": terms}
    body = {
        "metadata": {"name": "c", "uid": uid},
        "status": {"allocation": allocation, "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}] if reserved else None},
    }
    return standing.why_gone(msgspec.convert(body, ResourceClaim), RECORD, NODE)


def data(uid: str = "0000:03:00.0-0x56c0", node: str = "n1") -> str:
    return handle.render(Handle(version=1, node=node, parts=(Part(uid=uid, vfs=(1,), layout=(("flex170_m4", 4),)),)))


@pytest.mark.parametrize("still", [data(), "monitor", "of a later version", "", handle.render(Handle(version=1, node="n1", monitor=True))])
def test_a_claim_that_is_ours_or_may_be_is_kept(still: str) -> None:
    assert why(still) is None


def test_a_claim_that_is_not_ours_any_more_is_said_to_be_gone() -> None:
    assert why(data(), uid="other") == "was replaced by another of its name"
    assert why(None) == "is no longer allocated"
    assert why(data(), reserved=False) == "is reserved for nobody"
    assert why(data(node="n2")) == why("", node="n2") == "is allocated elsewhere"
    assert why("", node="n1") is None
    assert why(data("0000:09:00.0-0x56c0")) == "has other devices now"
