"""What the server says of devices that several claims may share, and of their shares, release by release."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.simcluster.offers import DRIVER, NODE, asks, claim, slice_of
from tools.simcluster import kinds, releases
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

RELEASES = ["1.34", "1.35", "1.36", "1.37"]
POLICY = "requestPolicy"
SHARE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def server(kubernetes: str, **gates: bool) -> Registry:
    return Registry(Store(), releases.release(kubernetes, gates={"DRAConsumableCapacity": True, **gates}))


def offering(policy: Json | None, *, value: str = "10", shared: bool = True) -> Json:
    device: Json = {"name": "gpu-0", "capacity": {"memory": {"value": value}}}
    if policy is not None:
        device["capacity"]["memory"][POLICY] = policy
    if shared:
        device["allowMultipleAllocations"] = True
    return slice_of("s", devices=[device])


def refused(kubernetes: str, body: Json, **gates: bool) -> list[str]:
    """Fields below the capacity."""
    with pytest.raises(Refused) as caught:
        server(kubernetes, **gates).create(kinds.SLICE, body)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    return [cause["field"].removeprefix("spec.devices[0].capacity[memory].") for cause in caught.value.details["causes"]]


def values(*amounts: str, default: str = "1") -> Json:
    return {"default": default, "validValues": list(amounts)}


def span(default: str | None = "2", **bounds: str) -> Json:
    return {**({"default": default} if default is not None else {}), "validRange": bounds}


@pytest.mark.parametrize("kubernetes", RELEASES)
@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (None, []),
        ({"default": "99"}, []),
        (values("1", "2", "10"), []),
        (values(*map(str, range(1, 11))), []),
        (values(*map(str, range(1, 12)), default="1"), [f"{POLICY}.validValues"] * 2),
        (values("2", "1"), [f"{POLICY}.validValues[1]"]),
        (values("1", "1"), [f"{POLICY}.validValues[1]"]),
        (values("1", "11"), [f"{POLICY}.validValues[1]"]),
        (values("2", "3"), [f"{POLICY}.validValues"]),
        ({"validValues": ["1"]}, [f"{POLICY}.default"]),
        ({"default": "2", "validValues": ["2"], "validRange": {"min": "1"}}, [POLICY]),
        (span(None, min="1"), [f"{POLICY}.default"]),
        (span(), [f"{POLICY}.validRange.min"]),
        (span(min="2"), []),
        (span(min="2", max="10", step="4"), []),
        (span("20", min="11"), [f"{POLICY}.validRange.min"]),
        (span(min="2", max="1"), [f"{POLICY}.validRange.max"] * 2),
        (span(min="2", max="11"), [f"{POLICY}.validRange.max"]),
        (span(min="2", step="9"), [f"{POLICY}.validRange.step"]),
        (span("3", min="2", step="2"), [f"{POLICY}.validRange.step"]),
        (span(min="2", max="7", step="2"), [f"{POLICY}.validRange.step"]),
        (span(min="2", step="0"), [f"{POLICY}.validRange.step"]),
    ],
)
def test_policies(kubernetes: str, policy: Json | None, fields: list[str]) -> None:
    body = offering(policy)
    found = refused(kubernetes, body) if fields else []
    if kubernetes == "1.37" and fields == [f"{POLICY}.validRange.max"] * 2:
        fields = [f"{POLICY}.validRange.max", f"{POLICY}.validRange.default"]
    assert found == fields
    if not fields:
        assert server(kubernetes).create(kinds.SLICE, body)["spec"] == body["spec"]


@pytest.mark.parametrize(("kubernetes", "field"), [("1.36", "min"), ("1.37", "default")])
def test_a_default_below_the_range(kubernetes: str, field: str) -> None:
    assert refused(kubernetes, offering(span("1", min="2"))) == [f"{POLICY}.validRange.{field}"]


WHOLE: list[tuple[str, dict[str, bool]]] = [("1.34", {}), ("1.36", {}), ("1.37", {})]
FINE: list[tuple[str, dict[str, bool]]] = [("1.37", {"DRAFractionalCapacityRange": True})]


@pytest.mark.parametrize(
    ("servers", "policy", "fields"),
    [
        (WHOLE, span("500m", min="500m", step="250m"), []),
        (FINE, span("500m", min="500m", step="250m"), []),
        # In whole units, rounded up, a default of 2.5 is three.
        (WHOLE, span("2500m", min="2", step="1"), []),
        (FINE, span("2500m", min="2", step="1"), [f"{POLICY}.validRange.step"]),
        (WHOLE, span("500m", min="500m", step="300m", max="1900m"), []),
        (FINE, span("500m", min="500m", step="300m", max="1900m"), [f"{POLICY}.validRange.step"]),
        (WHOLE, span("1500u", min="1500u", step="1"), []),
        (FINE, span("1500u", min="1500u", step="1"), [f"{POLICY}.validRange.default", f"{POLICY}.validRange.min"]),
        (WHOLE, values("100m", "200m", default="100m"), [f"{POLICY}.validValues[1]"]),
        (FINE, values("100m", "200m", default="100m"), []),
    ],
)
def test_fractions_are_counted_with_their_gate(servers: list[tuple[str, dict[str, bool]]], policy: Json, fields: list[str]) -> None:
    for kubernetes, gates in servers:
        if fields:
            assert refused(kubernetes, offering(policy), **gates) == fields
        else:
            server(kubernetes, **gates).create(kinds.SLICE, offering(policy))


@pytest.mark.parametrize(("kubernetes", "fields"), [("1.36", []), ("1.37", [f"{POLICY}.validRange.min"])])
def test_a_range_that_begins_below_nothing(kubernetes: str, fields: list[str]) -> None:
    body = offering(span("0", min="-1", step="1"))
    if fields:
        assert refused(kubernetes, body) == fields
    else:
        server(kubernetes).create(kinds.SLICE, body)


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_a_policy_is_for_devices_that_are_shared(kubernetes: str) -> None:
    assert refused(kubernetes, offering(values("1"), shared=False)) == [POLICY]


@pytest.mark.parametrize("kubernetes", ["1.36", "1.37"])
def test_a_capacity_that_stays_is_not_looked_at_again_from_1_37_on(kubernetes: str) -> None:
    registry = server(kubernetes)
    kept = registry.create(kinds.SLICE, offering(values("1")))

    def unshare(held: Json) -> None:
        held["spec"]["devices"][0]["allowMultipleAllocations"] = False

    if kubernetes == "1.37":
        assert registry.amend(kinds.SLICE, kept, unshare)["spec"]["devices"][0]["capacity"]["memory"][POLICY] == values("1")
    else:
        with pytest.raises(Refused, match="allowMultipleAllocations must be true"):
            registry.amend(kinds.SLICE, kept, unshare)


@pytest.mark.parametrize("kubernetes", RELEASES)
def test_without_the_gate_all_of_it_is_dropped_unless_it_was_there(kubernetes: str) -> None:
    registry = server(kubernetes)
    kept = registry.create(kinds.SLICE, offering(values("1")))
    constraint = {"distinctAttribute": f"{DRIVER}/numa"}
    made = registry.create(kinds.CLAIM, claim(asks(memory="1"), constraints=[constraint]), "default")
    registry.release = releases.release(kubernetes, gates={"DRAConsumableCapacity": False})
    amended = registry.amend(kinds.SLICE, kept, lambda held: held["metadata"].update(labels={"a": "b"}))
    assert amended["spec"] == kept["spec"]
    fresh = registry.create(kinds.SLICE, {**offering(values("1")), "metadata": {"name": "t"}})
    assert fresh["spec"]["devices"] == [{"name": "gpu-0", "capacity": {"memory": {"value": "10"}}}]
    plain = registry.create(kinds.CLAIM, {**claim(asks(memory="1")), "metadata": {"name": "d"}}, "default")
    assert "capacity" not in plain["spec"]["devices"]["requests"][0]["exactly"]
    assert made["spec"]["devices"]["constraints"] == [constraint]
    with pytest.raises(Refused) as caught:
        registry.create(kinds.CLAIM, {**claim(asks(memory="1"), constraints=[constraint]), "metadata": {"name": "e"}}, "default")
    assert [cause["field"] for cause in caught.value.details["causes"]] == ["spec.devices.constraints[0].matchAttribute"]


def allocation(**more: Any) -> Json:
    return {"devices": {"results": [{"request": "gpu", "driver": DRIVER, "pool": NODE, "device": "gpu-0", **more}]}}


@pytest.mark.parametrize(
    ("kubernetes", "share", "kept"),
    [("1.35", SHARE, False), ("1.36", SHARE, True), ("1.36", SHARE.upper(), None), ("1.36", "one", None)],
)
def test_a_share_has_a_uid(kubernetes: str, share: str, kept: bool | None) -> None:
    registry = Registry(Store(), releases.release(kubernetes))
    made = registry.create(kinds.CLAIM, claim(asks(memory="1")), "default")
    status = {"allocation": allocation(shareID=share, consumedCapacity={"memory": "1"})}

    def write(body: Json) -> None:
        body["status"] = status

    if kept is None:
        with pytest.raises(Refused) as caught:
            registry.amend(kinds.CLAIM, made, write, subresource="status")
        assert [cause["field"] for cause in caught.value.details["causes"]] == ["status.allocation.devices.results[0].shareID"]
        return
    stored = registry.amend(kinds.CLAIM, made, write, subresource="status")
    assert stored["status"]["allocation"] == (status["allocation"] if kept else allocation())


@pytest.mark.parametrize(("share", "fits"), [(SHARE, True), (None, False), (SHARE.replace("6", "7"), False)])
def test_the_status_of_a_share_names_it(share: str | None, fits: bool) -> None:
    registry = Registry(Store(), releases.release("1.36"))
    made = registry.create(kinds.CLAIM, claim(asks(memory="1")), "default")
    entry = {"driver": DRIVER, "pool": NODE, "device": "gpu-0", **({"shareID": share} if share else {})}
    status = {"allocation": allocation(shareID=SHARE), "devices": [entry]}

    def write(body: Json) -> None:
        body["status"] = status

    if fits:
        assert registry.amend(kinds.CLAIM, made, write, subresource="status")["status"] == status
    else:
        with pytest.raises(Refused, match="must be an allocated device in the claim"):
            registry.amend(kinds.CLAIM, made, write, subresource="status")
