"""No state between two writes lets a scheduler give a card to one claim and VFs of it to another."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import slice_contents, slice_plan
from dra.kube.meta import OwnerReference
from dra.pool import Effect, Pool, Taint
from dra.slice_plan import Create, Delete, Replace, Write
from dra.slices import SliceApi
from tests.fakes import cut_pools
from tests.fakes.cut_pools import card, overlapping

OWNER = OwnerReference(api_version="v1", kind="Node", name="n", uid="u1")
SICK = Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE)
APIS = [
    SliceApi("v1alpha3", (1, 31)),
    SliceApi("v1beta1", (1, 32)),
    SliceApi("v1beta1", (1, 33)),
    SliceApi("v1", (1, 34)),
    SliceApi("v1", (1, 35)),
    SliceApi("v1", (1, 36)),
]
WITH_COUNTERS = APIS[2:]


class Server:
    """Stores slices; after every write it asks which cards a scheduler could give away twice. With `gate` off it drops counters as the
    real one does: from what is new, not from objects that have some."""

    def __init__(self, api: SliceApi, stored: list[dict[str, Any]] | None = None) -> None:
        self.api, self.gate = api, True
        self.stored = {one["metadata"]["name"]: one for one in stored or []}
        self.numbers = itertools.count(100_000 if stored else 1000)
        self.exposed: set[str] = set()

    def settle(self, wanted: Pool) -> list[Write]:
        """Make the writes up to the first that comes back without counters, as the publisher does, and then what it publishes instead."""
        writes = slice_plan.plan(self.list, wanted, self.api, owner=OWNER)
        for write in writes:
            if not self._make(write):
                return [write, *self.settle(wanted.without_counters())]
        return writes

    def _make(self, write: Write) -> bool:
        kept = True
        match write:
            case Delete(name, _, _):
                del self.stored[name]
            case Create(body) | Replace(body):
                number = next(self.numbers)
                name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{number}"
                body = copy.deepcopy(body)
                body["metadata"] |= {"name": name, "uid": f"uid-{name}", "resourceVersion": str(number)}
                if not self.gate and not _counts(self.stored.get(name, {})):
                    kept = not _counts(body)
                    _drop(body)
                self.stored[name] = body
        self.exposed |= overlapping(self.list, self.api)
        return kept

    @property
    def list(self) -> list[dict[str, Any]]:
        return list(self.stored.values())


def _counts(body: dict[str, Any]) -> bool:
    return bool(slice_contents.counter_sets_of(body)) or any("consumesCounters" in one for one in slice_contents.devices_of(body).values())


def _drop(body: dict[str, Any]) -> None:
    body["spec"].pop("sharedCounters", None)
    for content in slice_contents.devices_of(body).values():
        content.pop("consumesCounters", None)
    for device in body["spec"].get("devices") or []:
        device.pop("consumesCounters", None)


def published(server: Server) -> list[str]:
    return sorted(name for one in server.list for name in slice_contents.devices_of(one))


def test_the_double_knows_a_card_that_is_given_away_twice_when_it_sees_one() -> None:
    for api in APIS:
        server = Server(api)
        server.settle(cut_pools.pool(card(0, 2)))
        for one in server.list:
            _drop(one)
        assert overlapping(server.list, api) == (set() if api in APIS[:2] else {"c00"})


@pytest.mark.parametrize("api", APIS)
def test_a_card_and_its_vfs_are_published_together_only_where_there_are_counters(api: SliceApi) -> None:
    server = Server(api)
    server.settle(cut_pools.pool(card(0, 2), card(1, 0)))
    assert published(server) == (["c00", "c00-v01", "c00-v02", "c01"] if api.knows_counters else ["c00-v01", "c00-v02", "c01"])
    assert not server.exposed
    assert server.settle(cut_pools.pool(card(0, 2), card(1, 0))) == []


@pytest.mark.parametrize(("api", "kinds"), [(WITH_COUNTERS[1], ["Replace"]), (WITH_COUNTERS[2], ["Replace"])])
def test_a_change_of_one_device_touches_one_slice(api: SliceApi, kinds: list[str]) -> None:
    server = Server(api)
    server.settle(cut_pools.pool(card(0, 2)))
    writes = server.settle(cut_pools.pool(card(0, 2, x=1)))
    assert [type(write).__name__ for write in writes] == kinds
    assert {one["spec"]["pool"]["generation"] for one in server.list} == {1}


def test_slices_without_devices_are_told_apart_by_their_counter_sets() -> None:
    """Of somebody who names them otherwise: nine cards have two slices of counter sets."""
    server = Server(SliceApi("v1", (1, 35)))
    wanted = cut_pools.pool(*(card(number, 1) for number in range(9)))
    server.settle(wanted)
    renamed = [copy.deepcopy(one) for one in server.list]
    for number, one in enumerate(renamed):
        one["metadata"]["name"] = f"n-gpu.intel.com-{9 - number}"
    server.stored = {one["metadata"]["name"]: one for one in renamed}
    assert server.settle(wanted) == []


@pytest.mark.parametrize(("before", "after"), [((1, 34), (1, 35)), ((1, 35), (1, 34))])
def test_the_layout_follows_the_server_through_upgrade_and_downgrade(before: tuple[int, int], after: tuple[int, int]) -> None:
    wanted = cut_pools.pool(card(0, 2), card(1, 63), card(2, 7))
    server = Server(SliceApi("v1", before))
    server.settle(wanted)
    server.api = SliceApi("v1", after)
    server.settle(wanted)
    assert not server.exposed and len(published(server)) == 3 + 64 + 8
    assert any(one["spec"].get("sharedCounters") and one["spec"].get("devices") for one in server.list) == (after == (1, 34))


def test_another_pool_of_ours_is_gone_before_anything_new_is_shown() -> None:
    for api in WITH_COUNTERS:
        server = Server(api)
        server.settle(cut_pools.pool(card(0, 0), card(1, 0)))
        [old] = server.list
        old["spec"]["pool"]["name"] = "former"
        server.settle(cut_pools.pool(card(0, 2), card(1, 2)))
        assert not server.exposed
        assert {one["spec"]["pool"]["name"] for one in server.list} == {"n"}


def test_a_sick_vf_that_is_withdrawn_keeps_its_card_taken() -> None:
    """The scheduler counts only devices that it sees."""
    pool = cut_pools.pool(card(0, 2, sick=[1], taint=SICK)).without_taints()
    assert [device.name for device in pool.devices] == ["c00", "c00-v02"]
    assert pool.counters == {"c00": {"memory": 1 << 30, "vfs": 1}}, "one VF fits, the card does not"
    assert cut_pools.pool(card(0, 2, sick=[0], taint=SICK)).without_taints().counters == {"c00": {"memory": 0, "vfs": 0}}


@given(st.lists(cut_pools.pools, min_size=1, max_size=4), st.sampled_from(APIS))
def test_no_state_on_the_way_offers_a_card_and_its_vfs_without_counters(history: list[Pool], api: SliceApi) -> None:
    server = Server(api)
    for wanted in history:
        server.settle(wanted)
        assert server.settle(wanted) == []
        shown = wanted if api.knows_counters else wanted.without_counters()
        assert published(server) == sorted(device.name for device in shown.devices)
    assert not server.exposed


@given(cut_pools.pools, cut_pools.pools, st.sampled_from(WITH_COUNTERS), st.data())
def test_nor_after_a_crash_between_two_writes_and_what_others_delete(before: Pool, after: Pool, api: SliceApi, data: st.DataObject) -> None:
    server = Server(api)
    server.settle(before)
    writes = slice_plan.plan(server.list, after, api, owner=OWNER)
    for write in writes[: data.draw(st.integers(0, len(writes)))]:
        server._make(write)
    for name in data.draw(st.lists(st.sampled_from(sorted(server.stored)), unique=True)) if server.stored else ():
        del server.stored[name]
        server.exposed |= overlapping(server.list, api)
    server.settle(after)
    assert not server.exposed
    assert server.settle(after) == []


@given(cut_pools.pools, cut_pools.pools, st.sampled_from([api for api in WITH_COUNTERS if api.splits_counters]))
def test_from_1_35_on_a_gate_that_goes_off_under_us_is_seen_before_the_pool_is_complete(before: Pool, after: Pool, api: SliceApi) -> None:
    server = Server(api)
    server.settle(before)
    server.gate = False
    server.settle(after)
    assert not server.exposed
