"""What is taken of the devices: by claims that have an allocation, and by those that are about to get one, which can be undone.

A device is taken whole or, where it says `allowMultipleAllocations`, in shares that add up to no more than its capacities. Either way
it takes its counters: once, however many shares of it there are.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from dra.structured import amounts, capacities
from dra.structured.capacities import Amount
from dra.structured.pools import Candidate, Counter, Id, Pool
from dra.structured.release import Release
from dra.structured.shapes import Json


class Held(msgspec.Struct):
    """What one result of an allocation has got."""

    id: Id
    share: str
    """Its share ID; empty if it has the device to itself."""
    capacity: dict[str, Amount]
    """Of a share."""
    counters: Mapping[Counter, int]
    claim: int | None
    """Of those that are about to get an allocation: number of the claim; it keeps others from the device."""


class Holdings:
    def __init__(
        self, pools: Sequence[Pool], allocated: Iterable[Json], release: Release, share_id: Callable[[], str] = lambda: "new"
    ) -> None:
        """
        Args:
            allocated: claims with an allocation; results with admin access take nothing.
            share_id: makes the ID of a new share; where nothing is stored, any will do.
        """
        self._release, self._share_id = release, share_id
        self._shares_known = release.has("DRAConsumableCapacity")
        self._counters = {key: value for pool in pools for key, value in pool.counters.items()}
        self._uses = {id: uses for pool in pools for id, uses in pool.uses.items()}
        self._whole: set[Id] = set()
        self._claims: dict[Id, list[int]] = {}
        self._shares: Multiset[Id] = Multiset()
        self._capacity: Multiset[tuple[Id, str]] = Multiset()
        for claim in allocated:
            for result in claim["status"]["allocation"]["devices"].get("results") or ():
                if not result.get("adminAccess"):
                    self._remember(result)
        # 1.34 and 1.35 forget that shares take counters as soon as they are allocated: a card in shares and its parts overlap there.
        for id in self._whole | (set(self._shares) if release.minor >= 36 else set()):
            self._count(self._uses.get(id, {}), -1)

    def _remember(self, result: Json) -> None:
        id = (result["driver"], result["pool"], result["device"])
        if not self._shares_known or not result.get("shareID"):
            self._whole.add(id)
            return
        self._shares[id] += 1
        for name, text in (result.get("consumedCapacity") or {}).items():
            self._capacity[id, name] += amounts.quantity(text)

    def in_use(self, candidate: Candidate, request: Json, claim: int) -> bool:
        """Whether the device is somebody's whom the request of the claim with this number cannot join."""
        holders = self._claims.get(candidate.id, [])
        if request.get("adminAccess"):
            return claim in holders
        return candidate.id in self._whole or bool(holders)

    def has_room(self, candidate: Candidate, request: Json) -> bool:
        """Whether the capacity that the request names is there.

        Raises:
            Uncountable
        """
        return self._amounts(candidate, request) is not None

    def lacking(self, candidate: Candidate) -> tuple[Counter, int, int] | None:
        """The first counter that keeps the device back: it, what is left of it, and what the device needs (0 where it is others that
        overdrew it), in billionths; None if none does."""
        needs = self._uses.get(candidate.id, {})
        books = {key[:3] for key in needs}
        lacks = ((key, left, needs.get(key, 0)) for key, left in self._counters.items() if key[:3] in books and left < needs.get(key, 0))
        return next(lacks, None)

    def consumers(self, counter: Counter) -> list[Id]:
        """Devices that are taken and take of the counter."""
        taken = self._whole | set(self._shares)
        return sorted(id for id in taken if self._uses.get(id, {}).get(counter))

    def take(self, candidate: Candidate, request: Json, claim: int) -> Held | None:
        """A device that is not in use, for a request of the claim with this number; None if too little of it is left.

        Raises:
            Uncountable
        """
        counters = self._uses.get(candidate.id, {})
        if counters and not self._release.has("DRAPartitionableDevices"):
            return None
        shared = self._shareable(candidate)
        if shared and self._shares[candidate.id] and self._release.minor >= 35:
            counters = {}
        # Admin access needs counters too: a card is not to be had, not even to look at, while a part of it is given away.
        if not self._fit(counters) or (capacity := self._amounts(candidate, request)) is None:
            return None
        if request.get("adminAccess") and self._release.minor <= 33:
            # It does not stand in the way of the pod's other claims yet.
            held = Held(candidate.id, "", {}, {}, None)
        elif shared:
            held = Held(candidate.id, self._share_id(), capacity, counters, None)
        else:
            held = Held(candidate.id, "", {}, counters, claim)
        self._change(held, 1)
        return held

    def give_back(self, held: Held) -> None:
        """Undo a `take`; of several the last one first."""
        self._change(held, -1)

    def _shareable(self, candidate: Candidate) -> bool:
        return self._shares_known and bool(candidate.device.get("allowMultipleAllocations"))

    def _amounts(self, candidate: Candidate, request: Json) -> dict[str, Amount] | None:
        """What the request takes of each capacity, if there is so much left."""
        if not self._shares_known:
            return {}
        offered = candidate.device.get("capacity") or {}
        asked = (request.get("capacity") or {}).get("requests") or {}
        wanted = capacities.taken(offered, asked, self._release)
        if wanted is None:
            return None
        fits = (
            self._capacity[candidate.id, name] + amount.billionths <= amounts.quantity(offered[name]["value"])
            for name, amount in wanted.items()
        )
        return wanted if all(fits) else None

    def _fit(self, counters: Mapping[Counter, int]) -> bool:
        """A counter that is overdrawn already keeps everything of its pool back that consumes any counter."""
        books = {key[:3] for key in counters}
        return all(left >= counters.get(key, 0) for key, left in self._counters.items() if key[:3] in books)

    def _change(self, held: Held, sign: int) -> None:
        self._count(held.counters, -sign)
        if held.share:
            self._shares[held.id] += sign
        if held.claim is not None:
            holders = self._claims.setdefault(held.id, [])
            (holders.append if sign > 0 else holders.remove)(held.claim)
        for name, amount in held.capacity.items():
            self._capacity[held.id, name] += sign * amount.billionths

    def _count(self, counters: Mapping[Counter, int], sign: int) -> None:
        for key, value in counters.items():
            self._counters[key] = self._counters.get(key, 0) + sign * value
