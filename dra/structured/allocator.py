"""Finds devices for the claims of a pod on one node: the structured allocation of the scheduler, as a search with backtracking.

First fit in the order of claims, requests, alternatives, pools and devices, as the real one; what came before is tried in another way
if there is nothing left for what comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from dra.structured import expressions
from dra.structured.capacities import Uncountable
from dra.structured.holdings import Held, Holdings
from dra.structured.pools import Candidate, Id, Pool
from dra.structured.release import Release
from dra.structured.shapes import Json

RESULTS: Final = 32
"""Most devices of a claim."""


class Unschedulable(Exception):
    """Nothing fits now; it may later."""


class Broken(Exception):
    """The attempt cannot be decided: a class that is missing, an expression that fails, a pool that is invalid."""


class TooLong(Broken):
    """More was tried than the caller wanted to wait for."""


class Wish(msgspec.Struct):
    """A request, or one alternative of it."""

    result_name: str
    base_name: str
    request: Json
    class_spec: Json
    everything: list[Candidate] | None = None
    """What `All` means; None for `ExactCount`."""

    @property
    def count(self) -> int:
        return int(self.request.get("count", 1)) if self.everything is None else len(self.everything)


class _Pick(msgspec.Struct):
    wish: Wish
    candidate: Candidate
    held: Held


class Allocator:
    """One decision. Make a new one for every pod: it keeps what it has given out."""

    def __init__(
        self,
        pools: Sequence[Pool],
        classes: Mapping[str, Json],
        allocated: Iterable[Json],
        release: Release,
        share_id: Callable[[], str] = lambda: "new",
        most_tries: int | None = None,
    ) -> None:
        """
        Args:
            classes: DeviceClass by name.
            allocated: claims with an allocation.
            share_id: see Holdings.
            most_tries: devices that `allocate` looks at; a search with constraints may go through all combinations.
        """
        self._pools, self._classes, self._release = pools, classes, release
        self._faults = {(pool.driver, pool.name): pool.fault for pool in pools}
        self._holdings = Holdings(pools, allocated, release, share_id)
        self._verdicts: dict[tuple[str, Id], bool] = {}
        self._tries_left = most_tries

    def allocate(self, claims: Sequence[Json]) -> list[Json]:
        """The `status.allocation` of each claim: all of them or none.

        Raises:
            Unschedulable, Broken
        """
        try:
            search = _Search(self, claims)
            if search.claim(0):
                return [self._allocation(claim, picks) for claim, picks in zip(claims, search.picks, strict=True)]
        except Uncountable as error:
            raise Broken(str(error)) from error
        if invalid := [f"{pool.name}: {pool.fault}" for pool in self._pools if pool.fault]:
            raise Broken(f"invalid resource pools were encountered: {', '.join(invalid)}")
        raise Unschedulable("cannot allocate all claims")

    # --- what is asked -----------------------------------------------------------------------------------------------------------

    def wishes(self, request: Json) -> list[Wish]:
        """The alternatives of a request, preferred ones first.

        Raises:
            Broken: the class is missing, `All` sees a pool that is incomplete or invalid, or what is asked for is switched off.
        """
        name = request["name"]
        if request.get("exactly"):
            return [self._wish(name, name, request["exactly"])]
        return [self._wish(f"{name}/{each['name']}", name, each) for each in request["firstAvailable"]]

    def _wish(self, result_name: str, base_name: str, request: Json) -> Wish:
        if request.get("capacity") is not None and not self._release.has("DRAConsumableCapacity"):
            raise Broken(f"request {result_name}: has capacity requests, but the DRAConsumableCapacity feature is disabled")
        device_class = self._classes.get(request["deviceClassName"])
        if device_class is None:
            raise Broken(f"request {result_name}: device class {request['deviceClassName']} does not exist")
        wish = Wish(result_name, base_name, request, device_class.get("spec") or {})
        if request.get("allocationMode") == "All":
            for pool in self._pools:
                if not pool.complete:
                    raise Broken(f"request {result_name}: asks for all devices, but resource pool {pool.name} is currently being updated")
                if pool.fault:
                    raise Broken(f"request {result_name}: asks for all devices, but resource pool {pool.name} is currently invalid")
            devices = [candidate for pool in self._pools for candidate in pool.candidates]
            wish.everything = [each for each in devices if self._selected(wish, each) and self._large_enough(wish, each)]
        return wish

    def _large_enough(self, wish: Wish, candidate: Candidate) -> bool:
        """Of `All` those are left out that could never give the capacity asked for; up to 1.36 also those that cannot now."""
        if not self._release.has("DRAConsumableCapacity"):
            return True
        if self._release.minor <= 36:
            return self._holdings.has_room(candidate, wish.request)
        return Holdings([], [], self._release).has_room(candidate, wish.request)

    # --- which devices -----------------------------------------------------------------------------------------------------------

    def candidates(self) -> list[Candidate]:
        """Those of all pools that may be used: from 1.35 on the complete and valid ones."""
        pools = [pool for pool in self._pools if self._release.minor <= 34 or (pool.complete and not pool.fault)]
        return [candidate for pool in pools for candidate in pool.candidates]

    @property
    def repeats(self) -> bool:
        """Whether one request may get several shares of a device."""
        return self._release.minor in (34, 35)

    def take(self, wish: Wish, candidate: Candidate, claim: int) -> Held | None:
        """The device for the claim with this number, if it is to be had.

        Raises:
            Broken: its pool is invalid, or an expression fails on it.
            Uncountable
        """
        if self._tries_left is not None:
            self._tries_left -= 1
            if self._tries_left < 0:
                raise TooLong("there are too many combinations of devices to try")
        if fault := self._faults.get(candidate.id[:2]):
            raise Broken(f"pool {candidate.id[1]} is invalid: {fault}")
        if self._holdings.in_use(candidate, wish.request, claim) or not self._selected(wish, candidate):
            return None
        if not tolerated(candidate.taints, wish.request.get("tolerations") or []):
            return None
        return self._holdings.take(candidate, wish.request, claim)

    def give_back(self, held: Held) -> None:
        self._holdings.give_back(held)

    def _selected(self, wish: Wish, candidate: Candidate) -> bool:
        for selector in (*(wish.class_spec.get("selectors") or ()), *(wish.request.get("selectors") or ())):
            text = selector["cel"]["expression"]
            key = (text, candidate.id)
            if key not in self._verdicts:
                try:
                    self._verdicts[key] = expressions.holds(text, candidate.variable)
                except expressions.CelError as error:
                    raise Broken(f"request {wish.result_name}: device {'/'.join(candidate.id)}: {error}") from error
            if not self._verdicts[key]:
                return False
        return True

    # --- the answer --------------------------------------------------------------------------------------------------------------

    def _allocation(self, claim: Json, picks: list[_Pick]) -> Json:
        results = [self._result(pick) for pick in picks]
        wishes = {pick.wish.result_name: pick.wish for pick in picks}
        config: list[Json] = []
        for name, wish in wishes.items():
            for entry in wish.class_spec.get("config") or ():
                config.append({"source": "FromClass", "requests": [name], **entry})
        chosen = {name for wish in wishes.values() for name in (wish.result_name, wish.base_name)}
        for entry in ((claim.get("spec") or {}).get("devices") or {}).get("config") or ():
            if not entry.get("requests") or chosen & set(entry["requests"]):
                config.append({"source": "FromClaim", **entry})
        nodes = sorted({pick.candidate.node for pick in picks if pick.candidate.node})
        devices = {"results": results, **({"config": config} if config else {})}
        if not nodes:
            return {"devices": devices}
        fields = [{"key": "metadata.name", "operator": "In", "values": nodes}]
        return {"devices": devices, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]}}

    def _result(self, pick: _Pick) -> Json:
        driver, pool, device = pick.candidate.id
        result: Json = {"request": pick.wish.result_name, "driver": driver, "pool": pool, "device": device}
        if pick.wish.request.get("adminAccess") and self._release.minor >= 32:
            result["adminAccess"] = True
        if pick.wish.request.get("tolerations"):
            result["tolerations"] = pick.wish.request["tolerations"]
        if pick.held.share:
            result["shareID"] = pick.held.share
        if pick.held.capacity:
            result["consumedCapacity"] = {name: str(amount) for name, amount in pick.held.capacity.items()}
        return result


class _Search:
    """Picks devices one after the other. Each step answers whether it and all after it succeeded; if not, it has undone what it did."""

    def __init__(self, allocator: Allocator, claims: Sequence[Json]) -> None:
        self._allocator = allocator
        specs = [(claim.get("spec") or {}).get("devices") or {} for claim in claims]
        self._requests = [[allocator.wishes(request) for request in spec.get("requests") or ()] for spec in specs]
        self._constraints = [spec.get("constraints") or [] for spec in specs]
        self.picks: list[list[_Pick]] = [[] for _ in claims]
        for requests in self._requests:
            if (least := sum(min(wish.count for wish in wishes) for wishes in requests)) > RESULTS:
                raise Broken(f"number of requested devices {least} exceeds the claim limit of {RESULTS}")

    def claim(self, number: int) -> bool:
        return number == len(self._requests) or self._request(number, 0)

    def _request(self, claim: int, number: int) -> bool:
        if number == len(self._requests[claim]):
            return self.claim(claim + 1)
        return any(self._devices(claim, number, wish) for wish in self._requests[claim][number])

    def _devices(self, claim: int, number: int, wish: Wish) -> bool:
        if wish.everything == [] or len(self.picks[claim]) + wish.count > RESULTS:
            return False
        devices = list(self._allocator.candidates()) if wish.everything is None else wish.everything
        return self._device(claim, number, wish, devices, wish.count)

    def _device(self, claim: int, number: int, wish: Wish, devices: list[Candidate], wanted: int) -> bool:
        if wanted == 0:
            return self._request(claim, number + 1)
        # The devices of a request are interchangeable: only one order is tried, and `All` needs each of them. Up to 1.35 the next one
        # may be the same again, if it can be shared.
        again = wish.everything is None and self._allocator.repeats
        for place, candidate in enumerate(devices if wish.everything is None else devices[:1], start=0 if again else 1):
            if (held := self._allocator.take(wish, candidate, claim)) is None:
                continue
            self.picks[claim].append(_Pick(wish, candidate, held))
            constrained = self._constrained(claim)
            if not constrained and wish.everything is not None:
                # No other choice of devices would help; other alternatives are not tried either.
                device = "/".join(candidate.id)
                raise Broken(f"request {wish.result_name}: cannot add device {device} because a claim constraint would not be satisfied")
            if constrained and self._device(claim, number, wish, devices[place:], wanted - 1):
                return True
            self.picks[claim].pop()
            self._allocator.give_back(held)
        return False

    def _constrained(self, claim: int) -> bool:
        for constraint in self._constraints[claim]:
            among = constraint.get("requests") or []
            values: list[Any] = [
                pick.candidate.attribute(constraint.get("matchAttribute") or constraint["distinctAttribute"])
                for pick in self.picks[claim]
                if not among or pick.wish.base_name in among or pick.wish.result_name in among
            ]
            if None in values:
                return False
            different = len({(type(value), value) for value in values})
            if different != (1 if constraint.get("matchAttribute") else len(values)) and values:
                return False
        return True


def tolerated(taints: list[Json], tolerations: list[Json]) -> bool:
    """Whether no taint keeps a request with these tolerations away."""
    return all(tolerates(tolerations, taint) for taint in taints if taint.get("effect") in ("NoSchedule", "NoExecute"))


def tolerates(tolerations: list[Json], taint: Json) -> bool:
    """Whether one of the tolerations covers the taint: an empty key covers all keys, an empty effect all effects."""
    for each in tolerations:
        if each.get("effect") and each["effect"] != taint.get("effect"):
            continue
        if each.get("key") and each["key"] != taint.get("key"):
            continue
        if each.get("operator", "Equal") == "Exists" or each.get("value", "") == taint.get("value", ""):
            return True
    return False
