"""Changes of a GpuAllocationState: nothing but what the node owns, and nothing twice."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dra.classic import state_patch
from dra.classic.inventory import AllocatableGpu, DeviceType
from dra.classic.names import DeviceUid
from dra.kube.node import owner_of

OWNER = owner_of("n1", "uid-1")

gpus = st.builds(
    AllocatableGpu,
    uid=st.just("u"),
    memory=st.integers(0, 3),
    millicores=st.just(1000),
    model=st.just("0x56c0"),
    type=st.sampled_from(DeviceType),
    parentuid=st.just(""),
    maxvfs=st.integers(0, 2),
    vfindex=st.just(0),
    ecc=st.booleans(),
    bulk_quota=st.booleans(),
)
offers = st.dictionaries(st.sampled_from([DeviceUid("a"), DeviceUid("b"), DeviceUid("c")]), gpus)
foreign = st.dictionaries(st.sampled_from(["taintedDevices", "allocatedClaims", "preparedClaims", "more"]), st.just({"x": {"y": 1}}))


def merged(onto: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    made = copy.deepcopy(onto)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = merged(made[key] if isinstance(made.get(key), dict) else {}, value)
        else:
            made[key] = value
    return made


@given(before=offers, wanted=offers, others=foreign, status=st.sampled_from(["Ready", "NotReady", ""]))
def test_one_patch_makes_it_right_and_leaves_the_rest(before: Any, wanted: Any, others: dict[str, Any], status: str) -> None:
    stored = state_patch.create("n1", "ns", OWNER, before, status)
    stored["spec"] |= others
    patch = state_patch.patch(stored, OWNER, wanted, "Ready")
    after = merged(stored, patch or {})
    assert state_patch.patch(after, OWNER, wanted, "Ready") is None
    assert after["spec"]["allocatableDevices"] == state_patch.create("n1", "ns", OWNER, wanted, "Ready")["spec"]["allocatableDevices"]
    assert {key: after["spec"].get(key) for key in others if key != "preparedClaims"} == {
        key: value for key, value in others.items() if key != "preparedClaims"
    }
    assert "preparedClaims" not in after["spec"] and after["status"] == "Ready"


def test_owners_besides_the_node_stay() -> None:
    stored = state_patch.create("n1", "ns", owner_of("n1", "older"), {}, "Ready")
    stored["metadata"]["ownerReferences"].append({"kind": "Other", "uid": "o"})
    patch = state_patch.patch(stored, OWNER, {}, "Ready")
    assert patch is not None
    assert [one["uid"] for one in patch["metadata"]["ownerReferences"]] == ["o", "uid-1"]


def test_an_object_of_which_nothing_is_filled_in_is_filled_in() -> None:
    for spec in ({}, {"spec": None}, {"spec": {"allocatableDevices": None}}):
        stored = {"metadata": {"name": "n1"}} | spec
        assert state_patch.patch(stored, OWNER, {}, "Ready") is not None
    assert state_patch.not_ready() == {"status": "NotReady"}
