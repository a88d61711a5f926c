"""Pools with cards that are cut, and the scheduler's view of their slices at the worst: what two claims could hold at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from dra import quantities, slice_contents
from dra.names import DeviceName
from dra.pool import Device, Pool, Taint
from dra.slices import SliceApi

Json = dict[str, Any]


def card(number: int, vfs: int, *, sick: Iterable[int] = (), taint: Taint | None = None, **attributes: int) -> list[Device]:
    """A card, `c00`, and its VFs, `c00-v01`, which stay where there are no counters; function 0 of `sick` is the card."""

    def device(name: str, index: int, taken: int) -> Device:
        taints = (taint,) if taint is not None and index in sick else ()
        return Device(
            name=DeviceName(name),
            attributes={"vfIndex": index, **attributes},
            capacity={"millicores": "1k"},
            consumes={f"c{number:02}": {"memory": taken << 30, "vfs": taken}} if vfs else {},
            alone=index > 0 or not vfs,
            taints=taints,
        )

    return [device(f"c{number:02}", 0, vfs), *(device(f"c{number:02}-v{index:02}", index, 1) for index in range(1, vfs + 1))]


def pool(*cards: list[Device]) -> Pool:
    devices = tuple(itertools.chain.from_iterable(cards))
    totals = {next(iter(device.consumes)): next(iter(device.consumes.values())) for device in devices[::-1] if device.consumes}
    return Pool(node="n", devices=devices, counters=totals)


pools = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 7, 24, 63]), st.integers(0, 1)), max_size=12).map(
    lambda drawn: pool(*(card(number, vfs, x=x) for number, (vfs, x) in enumerate(drawn)))
)


def overlapping(stored: Iterable[Json], api: SliceApi) -> set[str]:
    """Cards that a scheduler of this release could give to one claim whole, and a VF of them to another.

    Before 1.35 it uses what it sees of an incomplete pool, and counts within a slice; since, it leaves an incomplete pool alone, as it
    does one with a device whose counter set is not there. Schedulers without the feature leave devices that consume counters alone.
    """
    found: set[str] = set()
    by_pool: dict[str, list[Json]] = {}
    for one in stored:
        by_pool.setdefault(one["spec"]["pool"]["name"], []).append(one)
    free: dict[str, tuple[Json, Json, str]] = {}
    for name, slices in by_pool.items():
        newest = max(one["spec"]["pool"]["generation"] for one in slices)
        shown = [one for one in slices if one["spec"]["pool"]["generation"] == newest]
        if api.release >= (1, 35) and any(one["spec"]["pool"]["resourceSliceCount"] != len(shown) for one in shown):
            continue
        sets = {entry["name"]: entry["counters"] for one in shown for entry in one["spec"].get("sharedCounters") or []}
        for one in shown:
            own = {entry["name"]: entry["counters"] for entry in one["spec"].get("sharedCounters") or []}
            there = sets if api.splits_counters else own
            for device, content in slice_contents.devices_of(one).items():
                free[f"{name}/{device}"] = (content, there, name)
    for (one, (first, there, pool_of)), (other, (second, _, other_pool)) in itertools.combinations(free.items(), 2):
        card_of, vf_of = sorted((one.rpartition("/")[2], other.rpartition("/")[2]))
        if vf_of.partition("-")[0] != card_of:
            continue
        if pool_of != other_pool or not _kept_apart(first, second, there):
            found.add(card_of)
    return found


def _kept_apart(first: Json, second: Json, counters: Json) -> bool:
    wanted: dict[tuple[str, str], int] = {}
    for use in [*(first.get("consumesCounters") or []), *(second.get("consumesCounters") or [])]:
        for name, counter in use["counters"].items():
            key = use["counterSet"], name
            wanted[key] = wanted.get(key, 0) + quantities.parse(counter["value"])
    return any(
        name in counters and amount > quantities.parse(counters[name][counter]["value"]) for (name, counter), amount in wanted.items()
    )
