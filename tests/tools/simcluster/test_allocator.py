"""Which devices a claim gets, as tables: slices, claim, expected devices or the reason there are none."""

from __future__ import annotations

from typing import Any

import pytest

from dra.structured import pools
from dra.structured.allocator import Allocator, Broken, Unschedulable
from tools.simcluster import releases

DRIVER = "gpu.intel.com"
NODE = "node1"


def device(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


def slice_of(
    *devices: dict[str, Any], generation: int = 1, count: int = 1, name: str = "s", driver: str = DRIVER, **spec: Any
) -> dict[str, Any]:
    pool = {"name": NODE, "generation": generation, "resourceSliceCount": count}
    return {"metadata": {"name": name}, "spec": {"driver": driver, "nodeName": NODE, "pool": pool, "devices": list(devices), **spec}}


def exactly(name: str = "gpu", **more: Any) -> dict[str, Any]:
    return {"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, **more}}


def cel(expression: str) -> dict[str, Any]:
    return {"selectors": [{"cel": {"expression": expression}}]}


def claim(*requests: dict[str, Any], **devices: Any) -> dict[str, Any]:
    return {"metadata": {"name": "c", "uid": "u"}, "spec": {"devices": {"requests": list(requests), **devices}}}


CLASSES = {
    "gpu": {"metadata": {"name": "gpu"}, "spec": cel(f'device.driver == "{DRIVER}"')},
    "any": {"metadata": {"name": "any"}, "spec": {}},
}


def allocate(
    slices: list[dict[str, Any]],
    wanted: dict[str, Any],
    *,
    kubernetes: str = "1.36",
    allocated: list[dict[str, Any]] | None = None,
    rules: list[dict[str, Any]] | None = None,
    **gates: bool,
) -> dict[str, Any]:
    release = releases.release(kubernetes, gates=gates)
    [found] = Allocator(pools.gather(slices, NODE, rules or [], release), CLASSES, allocated or [], release).allocate([wanted])
    return found


def names(allocation: dict[str, Any]) -> list[str]:
    return [result["device"] for result in allocation["devices"]["results"]]


def holding(*devices: str, **more: Any) -> dict[str, Any]:
    results = [{"request": "gpu", "driver": DRIVER, "pool": NODE, "device": name, **more} for name in devices]
    return {"metadata": {"name": "other"}, "status": {"allocation": {"devices": {"results": results}}}}


FLEX = device("flex", attributes={"family": {"string": "Flex"}, "index": {"int": 0}}, capacity={"memory": {"value": "16Gi"}})
MAX = device("max", attributes={"family": {"string": "Max"}, "index": {"int": 1}}, capacity={"memory": {"value": "48Gi"}})
TAINT = {"key": "gpu.intel.com/unhealthy", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([exactly()], ["flex"]),
        ([exactly(count=2)], ["flex", "max"]),
        ([exactly("a"), exactly("b")], ["flex", "max"]),
        ([exactly(allocationMode="All", count=0)], ["flex", "max"]),
        ([exactly(**cel(f'device.attributes["{DRIVER}"].family == "Max"'))], ["max"]),
        ([exactly(**cel(f'device.capacity["{DRIVER}"].memory.compareTo(quantity("20Gi")) >= 0'))], ["max"]),
        # The first must leave the only one that the second can have.
        ([exactly("a", **cel(f'device.attributes["{DRIVER}"].index >= 0')), exactly("b", **cel('device.driver != ""'))], ["flex", "max"]),
        ([exactly("a"), exactly("b", **cel(f'device.attributes["{DRIVER}"].family == "Flex"'))], ["max", "flex"]),
        (
            [
                {
                    "name": "gpu",
                    "firstAvailable": [{**exactly(count=3)["exactly"], "name": "three"}, {**exactly()["exactly"], "name": "one"}],
                }
            ],
            ["flex"],
        ),
    ],
)
def test_requests(requests: list[dict[str, Any]], expected: list[str]) -> None:
    assert names(allocate([slice_of(FLEX, MAX)], claim(*requests))) == expected


def test_results_name_the_subrequest_and_the_node() -> None:
    wanted = claim({"name": "gpu", "firstAvailable": [{**exactly()["exactly"], "name": "one"}]})
    allocation = allocate([slice_of(FLEX)], wanted)
    assert allocation["devices"]["results"] == [{"request": "gpu/one", "driver": DRIVER, "pool": NODE, "device": "flex"}]
    assert allocation["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"] == [NODE]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (claim(exactly(count=3)), Unschedulable),
        (claim(exactly(deviceClassName="nope")), Broken),
        (claim(exactly(**cel(f'device.attributes["{DRIVER}"].nope == 1'))), Broken),
        (claim(exactly(count=2), constraints=[{"matchAttribute": f"{DRIVER}/family"}]), Unschedulable),
        (claim(exactly(count=2), constraints=[{"matchAttribute": f"{DRIVER}/nope"}]), Unschedulable),
    ],
)
def test_what_cannot_be(wanted: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        allocate([slice_of(FLEX, MAX)], wanted)


def test_match_attribute_passes_over_what_does_not_match() -> None:
    second = {**MAX, "name": "max-2"}
    wanted = claim(exactly(count=2), constraints=[{"requests": ["gpu"], "matchAttribute": f"{DRIVER}/family"}])
    assert names(allocate([slice_of(FLEX, MAX, second)], wanted)) == ["max", "max-2"]


def test_a_device_is_given_once_but_to_admins_always() -> None:
    slices, taken = [slice_of(FLEX)], [holding("flex")]
    with pytest.raises(Unschedulable):
        allocate(slices, claim(exactly()), allocated=taken)
    [result] = allocate(slices, claim(exactly(adminAccess=True)), allocated=taken)["devices"]["results"]
    assert result["adminAccess"] is True
    assert names(allocate(slices, claim(exactly()), allocated=[holding("flex", adminAccess=True)])) == ["flex"]


def test_taints_keep_away_who_does_not_tolerate_them() -> None:
    slices = [slice_of({**FLEX, "taints": [TAINT]})]
    with pytest.raises(Unschedulable):
        allocate(slices, claim(exactly()))
    tolerant = exactly(tolerations=[{"key": "gpu.intel.com/unhealthy", "operator": "Exists"}])
    [result] = allocate(slices, claim(tolerant))["devices"]["results"]
    assert result["tolerations"][0]["operator"] == "Exists"
    assert names(allocate(slices, claim(exactly()), DRADeviceTaints=False)) == ["flex"]
    informing = {**FLEX, "taints": [{**TAINT, "effect": "None"}]}
    assert names(allocate([slice_of(informing)], claim(exactly()))) == ["flex"]


def test_a_taint_rule_taints_devices_of_others() -> None:
    rule = {"metadata": {"name": "r"}, "spec": {"deviceSelector": {"driver": DRIVER, "device": "flex"}, "taint": TAINT}}
    assert names(allocate([slice_of(FLEX, MAX)], claim(exactly()), kubernetes="1.37", rules=[rule])) == ["max"]


def counted(name: str, amount: str) -> dict[str, Any]:
    return device(name, consumesCounters=[{"counterSet": "card", "counters": {"memory": {"value": amount}}}])


CARD = [{"name": "card", "counters": {"memory": {"value": "16Gi"}}}]


@pytest.mark.parametrize(
    ("held", "count", "expected"),
    [([], 1, ["pf"]), (["vf1"], 1, ["vf2"]), (["vf1"], 2, None), (["pf"], 1, None), ([], 2, ["vf1", "vf2"])],
)
def test_counters_exclude_a_card_and_its_parts(held: list[str], count: int, expected: list[str] | None) -> None:
    counters = {**slice_of(count=2, name="a", sharedCounters=CARD)}
    parts = slice_of(counted("pf", "16Gi"), counted("vf1", "8Gi"), counted("vf2", "8Gi"), count=2, name="b")
    taken = [holding(*held)] if held else []
    if expected is None:
        with pytest.raises(Unschedulable):
            allocate([counters, parts], claim(exactly(count=count)), allocated=taken)
    else:
        assert names(allocate([counters, parts], claim(exactly(count=count)), allocated=taken)) == expected


@pytest.mark.parametrize(("kubernetes", "expected"), [("1.34", ["flex"]), ("1.35", None)])
def test_an_incomplete_pool(kubernetes: str, expected: list[str] | None) -> None:
    slices, wanted = [slice_of(FLEX, count=2)], claim(exactly())
    if expected is None:
        with pytest.raises(Unschedulable):
            allocate(slices, wanted, kubernetes=kubernetes)
    else:
        assert names(allocate(slices, wanted, kubernetes=kubernetes)) == expected
    with pytest.raises(Broken):
        allocate(slices, claim(exactly(allocationMode="All", count=0)), kubernetes=kubernetes)


def test_only_the_newest_generation_counts() -> None:
    assert names(allocate([slice_of(FLEX, name="old"), slice_of(MAX, generation=2, name="new")], claim(exactly()))) == ["max"]


def test_config_of_the_class_comes_before_that_of_the_claim() -> None:
    def opaque(value: int) -> dict[str, Any]:
        return {"opaque": {"driver": DRIVER, "parameters": {"v": value}}}

    classes = {"gpu": {"metadata": {"name": "gpu"}, "spec": {"config": [opaque(1)]}}}
    release = releases.release("1.36")
    wanted = claim(exactly(), config=[opaque(2), {**opaque(3), "requests": ["gpu"]}])
    [found] = Allocator(pools.gather([slice_of(FLEX)], NODE, [], release), classes, [], release).allocate([wanted])
    assert [(entry["source"], entry["opaque"]["parameters"]["v"]) for entry in found["devices"]["config"]] == [
        ("FromClass", 1),
        ("FromClaim", 2),
        ("FromClaim", 3),
    ]
