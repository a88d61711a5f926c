"""Device by device: the first reason that excludes it."""

from __future__ import annotations

from typing import Any

import pytest

from dra.explaining.requests import Requests
from dra.explaining.verdicts import Cause, DeviceVerdict, NodeVerdict
from tests.fakes.gpu_clusters import claim, cluster, device, exactly, gpu_class, holding, is_type, node, pod, selectors, slice_of

CARD, OTHER = "0000-01-00-0-0x56c0", "0000-02-00-0-0x56c0"
Json = dict[str, Any]


def verdict_on(request: Json, *devices: Json, held: tuple[Json, ...] = (), of_class: Json | None = None, **objects: Any) -> NodeVerdict:
    objects.setdefault("slices", [slice_of(*devices)])
    seen = cluster(nodes=[node()], classes=[of_class or gpu_class()], claims=held, **objects)
    [verdict] = Requests(seen).explain(claim("c", request), pod("p", "c"))
    [on_node] = verdict.nodes
    return on_node


def only(verdict: NodeVerdict) -> DeviceVerdict:
    [device_verdict] = verdict.devices
    return device_verdict


def test_a_free_gpu_fits() -> None:
    found = verdict_on(exactly(), device(1))
    assert found.fits and only(found).cause is Cause.FITS


def test_the_expression_of_the_class_that_is_false_is_named() -> None:
    found = only(verdict_on(exactly(), device(1), of_class=gpu_class("gpu.intel.com", 'device.driver != ""', is_type("vf"))))
    assert (found.cause, found.expression) == (Cause.CLASS, is_type("vf"))


def test_the_selector_of_the_request_that_is_false_is_named() -> None:
    found = only(verdict_on(exactly(selectors=selectors(is_type("gpu"), is_type("vf"))), device(1)))
    assert (found.cause, found.expression) == (Cause.SELECTOR, is_type("vf"))
    assert "is false" in found.text


def test_an_expression_that_fails_is_told_with_the_error_and_a_guard() -> None:
    found = verdict_on(exactly(selectors=selectors('device.attributes["gpu.intel.com"].modell == "x"')), device(1))
    assert only(found).cause is Cause.CEL_ERROR
    assert "modell" in only(found).text and "guard" in only(found).cure
    assert "ends the scheduler's attempt" in found.text


def test_who_has_it_is_named_with_the_pod() -> None:
    found = only(verdict_on(exactly(), device(1), held=(holding("theirs", CARD, pods=("trainer",), namespace="ml"),)))
    assert found.cause is Cause.HELD
    assert found.text == "held by claim ml/theirs of pod trainer"
    assert found.cure == "wait until pod trainer in namespace ml ends, or delete it"


def test_who_only_looks_holds_nothing() -> None:
    assert verdict_on(exactly(), device(1), held=(holding("monitor", CARD, adminAccess=True),)).fits


@pytest.mark.parametrize("tolerations", [[], [{"key": "gpu.intel.com/wedged", "operator": "Exists"}]])
def test_a_taint_is_named_with_who_set_it_unless_it_is_tolerated(tolerations: list[Json]) -> None:
    taint = {"key": "gpu.intel.com/wedged", "effect": "NoExecute"}
    found = verdict_on(exactly(tolerations=tolerations), device(1, taints=[taint]))
    assert found.fits == bool(tolerations)
    if not tolerations:
        assert only(found).text == "tainted gpu.intel.com/wedged:NoExecute by the driver, which the request does not tolerate"


def test_a_taint_by_a_rule_is_cured_by_deleting_the_rule() -> None:
    rule = {
        "metadata": {"name": "repair"},
        "spec": {"deviceSelector": {"pool": "n1", "device": CARD}, "taint": {"key": "example.com/repair", "effect": "NoSchedule"}},
    }
    found = only(verdict_on(exactly(), device(1), taint_rules=[rule]))
    assert found.cause is Cause.TAINT and "DeviceTaintRule repair" in found.text
    assert found.cure.startswith("kubectl delete devicetaintrule repair")


def test_counters_say_what_is_left_and_whose_vf_took_it() -> None:
    def uses(amount: str) -> list[Json]:
        return [{"counterSet": "card", "counters": {"memory": {"value": amount}}}]

    slices = [
        slice_of(name="a", count=2, sharedCounters=[{"name": "card", "counters": {"memory": {"value": "16Gi"}}}]),
        slice_of(device(1, consumesCounters=uses("16Gi")), device(1, "vf", card=1, consumesCounters=uses("4Gi")), name="b", count=2),
    ]
    vf = "0000-01-00-1-0x56c0"
    whole = exactly(selectors=selectors(is_type("gpu")))
    found = verdict_on(whole, slices=slices, held=(holding("part", vf, pods=("encoder",)),))
    card = next(each for each in found.devices if each.device == CARD)
    assert card.cause is Cause.COUNTERS
    assert card.text == f"needs 16Gi of counter card/memory, 12Gi is left: {vf} is held by claim default/part of pod encoder"


def test_capacity_is_too_small_or_taken() -> None:
    wants = exactly(capacity={"requests": {"memory": "10Gi"}})
    small = only(verdict_on(wants, device(1, memory="8Gi", allowMultipleAllocations=True)))
    assert (small.cause, small.text) == (Cause.CAPACITY, "it has memory 8Gi, the request wants 10Gi")
    share = holding("half", CARD, pods=("a",), shareID="s", consumedCapacity={"memory": "8Gi"})
    taken = only(verdict_on(wants, device(1, memory="16Gi", allowMultipleAllocations=True), held=(share,)))
    assert taken.cause is Cause.CAPACITY and "shares are held by claim default/half of pod a" in taken.text


def test_a_count_says_how_many_fit() -> None:
    found = verdict_on(exactly(count=3), device(1), device(2))
    assert not found.fits and found.text == "asks for 3, 2 fit"


def test_all_wants_each_device_that_is_meant() -> None:
    everything = exactly(allocationMode="All", selectors=selectors(is_type("gpu")))
    devices = (device(1), device(2), device(3, "vf", card=2))
    assert verdict_on(everything, *devices).fits
    found = verdict_on(everything, *devices, held=(holding("one", OTHER),))
    assert found.text == "asks for all 2, 1 fits"


def test_a_class_that_is_missing_is_said_with_those_that_are_there() -> None:
    seen = cluster(nodes=[node()], classes=[gpu_class()], slices=[slice_of(device(1))])
    [verdict] = Requests(seen).explain(claim("c", exactly(of_class="gpu.typo")), None)
    assert verdict.problem == "there is no DeviceClass gpu.typo" and "gpu.intel.com" in verdict.cure


def test_alternatives_are_looked_at_one_by_one() -> None:
    asked = {"name": "gpu", "firstAvailable": [{"name": "big", **exactly(count=9)["exactly"]}, {"name": "one", **exactly()["exactly"]}]}
    seen = cluster(nodes=[node()], classes=[gpu_class()], slices=[slice_of(device(1))])
    verdicts = Requests(seen).explain(claim("c", asked), None)
    assert [(each.request, each.nodes[0].fits) for each in verdicts] == [("gpu/big", False), ("gpu/one", True)]


def test_slices_of_other_nodes_and_of_labels_are_seen_where_they_belong() -> None:
    anywhere = slice_of(device(3), name="labelled")
    spec = anywhere["spec"]
    del spec["nodeName"]
    spec["pool"]["name"] = "rack"
    spec["nodeSelector"] = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r1"]}]}]}
    seen = cluster(nodes=[node("n1", labels={"rack": "r1"}), node("n2")], classes=[gpu_class()], slices=[slice_of(device(1)), anywhere])
    [verdict] = Requests(seen).explain(claim("c"), None)
    assert {each.node: len(each.devices) for each in verdict.nodes} == {"n1": 2}
