from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import slice_contents, slice_plan
from dra.kube.meta import OwnerReference
from dra.names import DeviceName
from dra.pool import Device, Effect, Pool, Taint
from dra.slice_plan import Create, Delete, Replace, Write
from dra.slices import SliceApi

OWNER = OwnerReference(api_version="v1", kind="Node", name="n", uid="u1")
SICK = Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE)
APIS = [
    SliceApi("v1alpha3", (1, 31)),
    SliceApi("v1beta1", (1, 32)),
    SliceApi("v1beta2", (1, 33)),
    SliceApi("v1", (1, 35)),
    SliceApi("v1", (1, 36)),
]


class Server:
    """Stores slices; looks at what a scheduler would see after every write."""

    def __init__(self, stored: list[dict[str, Any]] | None = None) -> None:
        self.stored = {one["metadata"]["name"]: one for one in stored or []}
        # What is stored already was numbered by another life of the server.
        self.numbers = itertools.count(100_000 if stored else 1000)
        self.doubled = False

    def apply(self, writes: list[Write]) -> None:
        for write in writes:
            match write:
                case Create(body):
                    body = copy.deepcopy(body)
                    number = next(self.numbers)
                    name = f"{body['metadata']['generateName']}{number}"
                    body["metadata"] |= {"name": name, "uid": f"uid-{number}", "resourceVersion": str(number)}
                    self._put(name, body)
                case Replace(body):
                    name = body["metadata"]["name"]
                    assert self.stored[name]["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
                    body = copy.deepcopy(body)
                    body["metadata"]["resourceVersion"] = str(next(self.numbers))
                    self._put(name, body)
                case Delete(name, uid, version):
                    old = self.stored.pop(name)
                    assert (old["metadata"]["uid"], old["metadata"]["resourceVersion"]) == (uid, version)

    def _put(self, name: str, body: dict[str, Any]) -> None:
        for content in slice_contents.devices_of(body).values():
            for taint in content.get("taints", []):
                taint.setdefault("timeAdded", f"time-{next(self.numbers)}")
        self.stored[name] = body
        newest = max(one["spec"]["pool"]["generation"] for one in self.stored.values())
        seen = [
            name for one in self.stored.values() if one["spec"]["pool"]["generation"] == newest for name in slice_contents.devices_of(one)
        ]
        self.doubled |= len(seen) != len(set(seen))

    @property
    def list(self) -> list[dict[str, Any]]:
        return list(self.stored.values())


def device(number: int, *, sick: bool = False, **attributes: int) -> Device:
    return Device(name=DeviceName(f"gpu-{number:04}"), attributes=attributes, capacity={"memory": "1024Mi"}, taints=(SICK,) if sick else ())


def pool(*devices: Device) -> Pool:
    return Pool(node="n", devices=devices)


def kinds(writes: list[Write]) -> list[str]:
    return [type(write).__name__ for write in writes]


def settle(server: Server, wanted: Pool, api: SliceApi = APIS[3], owner: OwnerReference = OWNER) -> list[Write]:
    writes = slice_plan.plan(server.list, wanted, api, owner=owner)
    server.apply(writes)
    return writes


@pytest.mark.parametrize("api", APIS)
def test_nothing_differs_nothing_is_written(api: SliceApi) -> None:
    server = Server()
    assert kinds(settle(server, pool(device(1)), api)) == ["Create"]
    assert settle(server, pool(device(1)), api) == []


@pytest.mark.parametrize("api", APIS)
def test_one_changed_slice_is_updated_in_place_with_its_generation(api: SliceApi) -> None:
    server = Server()
    many = [device(number) for number in range(200)]
    settle(server, pool(*many), api)
    writes = settle(server, pool(*many[:-1], device(199, x=1)), api)
    assert kinds(writes) == ["Replace"]
    assert {one["spec"]["pool"]["generation"] for one in server.list} == {1}


def test_several_changed_slices_get_a_new_generation_together() -> None:
    server = Server()
    settle(server, pool(*[device(number) for number in range(200)]))
    writes = settle(server, pool(*[device(number, x=1) for number in range(200)]))
    assert kinds(writes) == ["Replace", "Replace"]
    assert {one["spec"]["pool"]["generation"] for one in server.list} == {2}


@pytest.mark.parametrize(
    ("api", "order"), [(APIS[3], ["Replace", "Delete"]), (APIS[4], ["Delete", "Replace"]), (APIS[0], ["Delete", "Delete", "Create"])]
)
def test_what_is_obsolete_goes_last_before_1_36_first_since_and_everything_first_on_1_31(api: SliceApi, order: list[str]) -> None:
    server = Server()
    settle(server, pool(*[device(number) for number in range(129)]), api)
    assert kinds(settle(server, pool(device(0)), api)) == order


def test_times_of_taints_that_stay_are_sent_back() -> None:
    server = Server()
    settle(server, pool(device(1, sick=True), device(2)))
    before = server.list[0]["spec"]["devices"][0]["taints"][0]["timeAdded"]
    settle(server, pool(device(1, sick=True, x=1), device(2, sick=True)))
    after = server.list[0]["spec"]["devices"]
    assert after[0]["taints"][0]["timeAdded"] == before != after[1]["taints"][0]["timeAdded"]


def test_a_new_node_object_becomes_owner_without_a_new_generation_and_other_metadata_stays() -> None:
    server = Server()
    settle(server, pool(*[device(number) for number in range(129)]))
    for one in server.list:
        one["metadata"]["labels"] = {"admin": "was-here"}
    renewed = OwnerReference(api_version="v1", kind="Node", name="n", uid="u2")
    assert kinds(settle(server, pool(*[device(number) for number in range(129)]), owner=renewed)) == ["Replace", "Replace"]
    for one in server.list:
        assert [reference["uid"] for reference in one["metadata"]["ownerReferences"]] == ["u2"]
        assert one["metadata"]["labels"] == {"admin": "was-here"}
        assert one["spec"]["pool"]["generation"] == 1


def test_a_slice_of_another_publisher_is_taken_over_in_place_before_1_36() -> None:
    server = Server()
    settle(server, pool(device(1)))
    [old] = server.list
    server.stored = {"n-gpu.intel.com-abcde": {**old, "metadata": {**old["metadata"], "name": "n-gpu.intel.com-abcde"}}}
    assert settle(server, pool(device(1))) == []
    assert kinds(settle(server, pool(device(1)), APIS[4])) == ["Delete", "Create"]


def test_a_leftover_of_an_older_generation_and_another_pool_are_removed_without_a_new_generation() -> None:
    server = Server()
    settle(server, pool(device(1)))
    left = copy.deepcopy(server.list[0])
    left["metadata"] |= {"name": "left", "uid": "left"}
    left["spec"]["pool"]["generation"] = 0
    other = copy.deepcopy(left)
    other["metadata"] |= {"name": "other", "uid": "other"}
    other["spec"]["pool"]["name"] = "former-pool"
    server.stored |= {"left": left, "other": other}
    assert kinds(settle(server, pool(device(1)))) == ["Delete", "Delete"]


def test_tainted_devices_are_not_offered_where_taints_are_unknown() -> None:
    server = Server()
    settle(server, pool(device(1, sick=True), device(2)), APIS[1])
    assert list(slice_contents.devices_of(server.list[0])) == ["gpu-0002"]


@pytest.mark.parametrize(("api", "said"), [(APIS[0], 0), (APIS[2], 0), (APIS[3], 1)])
def test_a_taint_that_only_informs_is_said_where_that_is_allowed_and_withdraws_nothing(api: SliceApi, said: int) -> None:
    server = Server()
    hint = Taint("gpu.intel.com/fan-slow", Effect.NONE)
    settle(server, pool(Device(name=DeviceName("gpu-0001"), taints=(hint,))), api)
    [content] = slice_contents.devices_of(server.list[0]).values()
    assert len(content.get("taints", [])) == said


def test_what_the_server_was_seen_to_keep_is_not_sent_again() -> None:
    server = Server()
    settle(server, pool(device(1, x=1)))
    sent = slice_contents.fingerprint(server.list[0])
    server.list[0]["spec"]["devices"][0]["attributes"] = {}
    kept = slice_contents.fingerprint(server.list[0])
    assert slice_plan.plan(server.list, pool(device(1, x=1)), APIS[3], owner=OWNER)
    assert not slice_plan.plan(server.list, pool(device(1, x=1)), APIS[3], owner=OWNER, adopted={sent: kept})


devices = st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.integers(0, 2)), max_size=6, unique_by=lambda one: one[0]).map(
    lambda found: tuple(device(number, sick=sick, x=x) for number, sick, x in sorted(found))
)
# Whole decades of devices make several slices without drawing hundreds of values.
pools = st.tuples(devices, st.sampled_from([0, 60, 70, 130, 260])).map(
    lambda drawn: pool(*drawn[0], *[device(1000 + number, x=0) for number in range(drawn[1])])
)


@st.composite
def found(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Slices of any history: several publishers, generations and counts, torn by crashes and edited by hand."""
    server = Server()
    stored: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 3))):
        server.stored = {}
        settle(server, draw(pools), draw(st.sampled_from(APIS[2:])))
        for kept in server.list:
            if draw(st.booleans()):
                one = copy.deepcopy(kept)
                name = draw(st.sampled_from([one["metadata"]["name"], f"n-gpu.intel.com-{len(stored)}", f"7f-gpu.intel.com-{len(stored)}"]))
                one["metadata"] |= {"name": name, "uid": f"old-{len(stored)}"}
                one["spec"]["pool"] |= {"generation": draw(st.integers(0, 3)), "name": draw(st.sampled_from(["n", "n", "n", "former"]))}
                stored.append(one)
    return list({one["metadata"]["name"]: one for one in stored}.values())


@given(found(), pools, st.sampled_from(APIS[2:]))
def test_any_state_converges_in_one_round_and_the_next_writes_nothing(stored: list[dict[str, Any]], wanted: Pool, api: SliceApi) -> None:
    server = Server(stored)
    settle(server, wanted, api)
    assert settle(server, wanted, api) == []
    shown = [(one["spec"]["pool"], one["metadata"]["name"]) for one in server.list]
    assert len({(number["name"], number["generation"]) for number, _ in shown}) == 1
    assert all(number["resourceSliceCount"] == len(shown) for number, _ in shown)
    published = [name for one in sorted(server.list, key=lambda one: one["metadata"]["name"]) for name in slice_contents.devices_of(one)]
    if api.deletes_first:
        assert published == [one.name for one in wanted.devices]
    assert sorted(published) == sorted(one.name for one in wanted.devices)


@given(st.lists(pools, min_size=1, max_size=5), st.sampled_from(APIS))
def test_no_scheduler_ever_sees_a_device_twice(history: list[Pool], api: SliceApi) -> None:
    server = Server()
    for wanted in history:
        settle(server, wanted, api)
    assert not server.doubled
