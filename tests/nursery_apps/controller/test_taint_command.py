"""Taints by hand."""

from __future__ import annotations

import pytest

from dra.pool import Effect
from nursery_apps.controller.taint_command import TaintRefused, taint
from nursery_apps.controller.tainter import Tainter
from nursery_apps.seams import Forbidden, ServedApi
from tests.fakes.gpu_states import CARD, UID, VF, VF_UID, device, slice_of, state
from tests.fakes.kube_api import ALL_PLURALS, FakeKubeApi

OTHER_UID, OTHER = "0000:04:00.0-0x56c0", "0000-04-00-0-0x56c0"


@pytest.fixture
def api() -> FakeKubeApi:
    made = FakeKubeApi()
    made.offer = ServedApi("v1.29.6", (("v1alpha2", ("podschedulingcontexts", "resourceclaims")),))
    made.put("nodes", {"metadata": {"name": "n1"}})
    made.put("gpuallocationstates", state("n1", device(UID), device(VF_UID, parent=UID), device(OTHER_UID)), namespace="ns")
    return made


@pytest.fixture
def tainter(api: FakeKubeApi) -> Tainter:
    return Tainter(api, namespace="ns", effect=lambda: Effect.NO_SCHEDULE, random=lambda: 0.5)


async def test_all_cards_of_a_node_and_back(api: FakeKubeApi, tainter: Tainter) -> None:
    assert await taint(tainter, "n1") == ["n1: no device is tainted"]
    assert await taint(tainter, "n1", reason="maintenance") == [f"n1 {CARD}: maintenance", f"n1 {OTHER}: maintenance"]
    assert set(api.of("gpuallocationstates")[0]["spec"]["taintedDevices"]) == {UID, OTHER_UID}
    assert await taint(tainter, "n1", reason="again", device=VF_UID) == [f"n1 {CARD}: again, maintenance", f"n1 {OTHER}: maintenance"]
    assert await taint(tainter, "n1", clear=True, device=OTHER) == [f"n1 {CARD}: again, maintenance"]
    assert await taint(tainter, "n1", clear=True) == ["n1: no device is tainted"]
    assert api.of("gpuallocationstates")[0]["spec"]["taintedDevices"] == {}


async def test_with_rules(api: FakeKubeApi, tainter: Tainter) -> None:
    api.offer = ServedApi("v1.37.2", (("v1", (*ALL_PLURALS, "devicetaintrules")),))
    api.put("resourceslices", slice_of("n1", CARD, VF))
    assert await taint(tainter, "n1", reason="maintenance", device=UID) == [f"n1 {CARD}: maintenance", f"n1 {VF}: maintenance"]
    assert len(api.of("devicetaintrules")) == 2
    assert await taint(tainter, "n1", clear=True, device=UID) == ["n1: no device is tainted"]
    assert api.of("devicetaintrules") == []


async def test_what_makes_no_sense_changes_nothing(api: FakeKubeApi, tainter: Tainter) -> None:
    for arguments, why in (
        ({"reason": "x", "clear": True}, "one of them"),
        ({"reason": ""}, "printable"),
        ({"reason": "x\ny"}, "printable"),
        ({"reason": "x", "device": "card0"}, "not a device uid"),
        ({"reason": "x", "device": "0000:99:00.0-0x56c0"}, "has no device"),
    ):
        with pytest.raises(TaintRefused, match=why):
            await taint(tainter, "n1", **arguments)  # type: ignore[arg-type]
    with pytest.raises(TaintRefused, match="no devices"):
        await taint(tainter, "n2", clear=True)
    api.failures.append(("get", Forbidden(403, "Forbidden", "no")))
    with pytest.raises(Forbidden):
        await taint(tainter, "n1", reason="x")
    assert "patch" not in {verb for verb, _, _ in api.calls}
