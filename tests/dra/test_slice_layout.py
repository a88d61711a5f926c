"""Which devices and counter sets share a slice, before 1.35 and since."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import slice_layout
from dra.pool import Device, Effect, Pool, Taint
from dra.slice_layout import Part
from tests.fakes import cut_pools
from tests.fakes.cut_pools import card

SICK = Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE)


def shape(parts: list[Part]) -> list[tuple[int, int]]:
    """Devices and counter sets of each."""
    return [(len(part.devices), len(part.counters)) for part in parts]


@pytest.mark.parametrize(
    ("cards", "joined", "split"),
    [
        ([], [(0, 0)], [(0, 0)]),
        ([card(0, 0)], [(1, 0)], [(1, 0)]),
        ([card(0, 2)], [(3, 1)], [(0, 1), (3, 0)]),
        ([card(0, 63), card(1, 0)], [(64, 1), (1, 0)], [(0, 1), (64, 0), (1, 0)]),
        ([card(0, 0), card(1, 63)], [(1, 0), (64, 1)], [(0, 1), (64, 0), (1, 0)]),
        ([card(number, 24) for number in range(4)], [(50, 2), (50, 2)], [(0, 4), (64, 0), (36, 0)]),
        # Two counters each: 16 sets make the 32 of a slice of 1.34, 8 sets a slice of their own since.
        ([card(number, 1) for number in range(17)], [(32, 16), (2, 1)], [(0, 8), (0, 8), (0, 1), (34, 0)]),
    ],
)
def test_shapes(cards: list[list[Device]], joined: list[tuple[int, int]], split: list[tuple[int, int]]) -> None:
    pool = cut_pools.pool(*cards)
    assert shape(slice_layout.parts(pool, split=False)) == joined
    assert shape(slice_layout.parts(pool, split=True)) == split


def test_a_counter_set_nothing_consumes_is_not_said() -> None:
    pool = msgspec.structs.replace(cut_pools.pool(card(0, 2)), devices=tuple(card(1, 0)))
    assert shape(slice_layout.parts(pool, split=True)) == shape(slice_layout.parts(pool, split=False)) == [(1, 0)]


def test_a_card_whose_functions_are_not_neighbours_is_still_in_one_slice() -> None:
    one, other = card(0, 24), card(1, 40)
    pool = msgspec.structs.replace(cut_pools.pool(one, other), devices=(*one[:2], *other, *one[2:]))
    parts = slice_layout.parts(pool, split=False)
    assert [[device.name for device in part.devices] for part in parts] == [[device.name for device in some] for some in (one, other)]


@given(cut_pools.pools, st.booleans(), st.booleans())
def test_everything_is_there_once_in_order_and_within_the_limits(pool: Pool, split: bool, tainted: bool) -> None:
    if tainted and pool.devices:
        pool = msgspec.structs.replace(pool, devices=(msgspec.structs.replace(pool.devices[0], taints=(SICK,)), *pool.devices[1:]))
    parts = slice_layout.parts(pool, split=split)
    assert [device for part in parts for device in part.devices] == list(pool.devices)
    assert {name for part in parts for name in part.counters} == set(pool.counters)
    assert sum(len(part.counters) for part in parts) == len(pool.counters)
    assert max(len(part.devices) for part in parts) <= (64 if tainted or pool.counters else 128)
    for part in parts:
        used = {name for device in part.devices for name in device.consumes}
        if split:
            assert not (part.devices and part.counters) and len(part.counters) <= 8
        else:
            assert used == set(part.counters)
            assert sum(len(amounts) for amounts in part.counters.values()) <= 32
            assert sum(len(amounts) for device in part.devices for amounts in device.consumes.values()) <= 1024
