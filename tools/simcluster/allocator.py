"""Finds devices for the claims of a pod on one node: the structured allocation of the scheduler, as a search with backtracking.

First fit in the order of requests, pools and devices, as the real one. Consumable capacity is not done: a device that allows several
allocations is given to one claim at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tools.simcluster import expressions, names
from tools.simcluster.kinds import Json
from tools.simcluster.pools import Candidate, Id, Pool
from tools.simcluster.releases import Release

RESULTS: Final = 32
"""Most devices of a claim."""


class Unschedulable(Exception):
    """Nothing fits now; it may later."""


class Broken(Exception):
    """The attempt cannot be decided: a class that is missing, an expression that fails, a pool that is invalid."""


class _Slot(msgspec.Struct):
    """One device that is still to be found."""

    result_name: str
    request: Json
    class_spec: Json
    base_name: str

    @property
    def admin(self) -> bool:
        return bool(self.request.get("adminAccess"))


class Allocator:
    """One decision. Make a new one for every pod: it keeps what it has given out."""

    def __init__(self, pools: Sequence[Pool], classes: Mapping[str, Json], allocated: Iterable[Json], release: Release) -> None:
        """
        Args:
            classes: DeviceClass by name.
            allocated: claims with an allocation.
        """
        self._pools = {(pool.driver, pool.name): pool for pool in pools}
        self._classes, self._release = classes, release
        self._used: set[Id] = set()
        for claim in allocated:
            for result in claim["status"]["allocation"]["devices"].get("results") or ():
                if not result.get("adminAccess"):
                    self._used.add((result["driver"], result["pool"], result["device"]))
        self._devices = {candidate.id: candidate for pool in pools for candidate in pool.candidates}
        self._left = {key: {name: dict(counters) for name, counters in pool.counters.items()} for key, pool in self._pools.items()}
        for used in self._used:
            if used in self._devices:
                self._count(self._devices[used], -1)
        self._verdicts: dict[tuple[str, Id], bool] = {}

    def allocate(self, claim: Json) -> Json:
        """The `status.allocation` of a claim.

        Raises:
            Unschedulable, Broken
        """
        devices = (claim.get("spec") or {}).get("devices") or {}
        constraints = devices.get("constraints") or []
        for choice in self._choices(devices.get("requests") or []):
            slots = [slot for request in choice for slot in self._slots(*request)]
            if any(slot is None for slot in slots) or len(slots) > RESULTS:
                continue
            wanted = [slot for slot in slots if slot is not None]
            if (found := self._search(wanted, [], constraints)) is not None:
                return self._allocation(claim, choice, list(zip(wanted, found, strict=True)))
        raise Unschedulable("cannot allocate all claims")

    # --- what is asked -----------------------------------------------------------------------------------------------------------

    def _choices(self, requests: list[Json]) -> Iterable[list[tuple[str, str, Json]]]:
        """Every way to pick one alternative of each request, preferred ones first: (result name, base name, request)."""
        if not requests:
            yield []
            return
        first, *rest = requests
        name = first["name"]
        if first.get("exactly"):
            alternatives = [(name, name, first["exactly"])]
        else:
            alternatives = [(f"{name}/{each['name']}", name, each) for each in first["firstAvailable"]]
        for alternative in alternatives:
            for others in self._choices(rest):
                yield [alternative, *others]

    def _slots(self, result_name: str, base_name: str, request: Json) -> list[_Slot | None]:
        """One for every device; a None where `All` finds none.

        Raises:
            Broken: the class is missing, or `All` sees an incomplete pool.
        """
        device_class = self._classes.get(request["deviceClassName"])
        if device_class is None:
            raise Broken(f"request {result_name}: device class {request['deviceClassName']} does not exist")
        slot = _Slot(result_name, request, device_class.get("spec") or {}, base_name)
        if request.get("allocationMode") != "All":
            return [slot] * request.get("count", 1)
        for pool in self._pools.values():
            if not pool.complete:
                raise Broken(f"request {result_name}: asks for all devices, but resource pool {pool.name} is currently being updated")
        matching = [candidate for candidate in self._devices.values() if self._selected(slot, candidate)]
        return [slot] * len(matching) if matching else [None]

    # --- search ------------------------------------------------------------------------------------------------------------------

    def _search(self, slots: list[_Slot], found: list[Candidate], constraints: list[Json]) -> list[Candidate] | None:
        if len(found) == len(slots):
            return list(found)
        slot = slots[len(found)]
        previous = found[-1] if found and slots[len(found) - 1] is slot else None
        past_previous = previous is None
        for pool in self._pools.values():
            for candidate in pool.candidates:
                # Slots of one request are interchangeable: only ascending order is tried.
                if not past_previous:
                    past_previous = candidate is previous
                    continue
                if not self._usable(pool) or not self._free(slot, candidate, found) or not self._selected(slot, candidate):
                    continue
                if not self._constrained(slots, [*found, candidate], constraints):
                    continue
                if not slot.admin:
                    self._take(candidate)
                result = self._search(slots, [*found, candidate], constraints)
                if result is not None:
                    return result
                if not slot.admin:
                    self._give_back(candidate)
        return None

    def _usable(self, pool: Pool) -> bool:
        if pool.fault:
            if self._release.minor < 35:
                raise Broken(f"invalid resource pool {pool.name}: {pool.fault}")
            return False
        return pool.complete or self._release.minor < 35

    def _free(self, slot: _Slot, candidate: Candidate, found: list[Candidate]) -> bool:
        if not _tolerated(candidate.taints, slot.request.get("tolerations") or []):
            return False
        if slot.admin:
            return candidate not in found
        if candidate.id in self._used:
            return False
        return all(
            self._left[candidate.id[:2]].get(use["counterSet"], {}).get(name, 0) >= names.quantity(counter["value"])
            for use in candidate.device.get("consumesCounters") or ()
            for name, counter in use["counters"].items()
        )

    def _selected(self, slot: _Slot, candidate: Candidate) -> bool:
        for selector in (*(slot.class_spec.get("selectors") or ()), *(slot.request.get("selectors") or ())):
            text = selector["cel"]["expression"]
            key = (text, candidate.id)
            if key not in self._verdicts:
                try:
                    self._verdicts[key] = expressions.holds(text, candidate.variable)
                except expressions.CelError as error:
                    raise Broken(f"request {slot.result_name}: device {'/'.join(candidate.id)}: {error}") from error
            if not self._verdicts[key]:
                return False
        return True

    def _constrained(self, slots: list[_Slot], found: list[Candidate], constraints: list[Json]) -> bool:
        for constraint in constraints:
            among = constraint.get("requests") or []
            values: list[Any] = [
                candidate.attribute(constraint.get("matchAttribute") or constraint["distinctAttribute"])
                for slot, candidate in zip(slots, found, strict=False)
                if not among or slot.base_name in among or slot.result_name in among
            ]
            if None in values:
                return False
            different = len({(type(value), value) for value in values})
            if different != (1 if constraint.get("matchAttribute") else len(values)) and values:
                return False
        return True

    def _take(self, candidate: Candidate) -> None:
        self._used.add(candidate.id)
        self._count(candidate, -1)

    def _give_back(self, candidate: Candidate) -> None:
        self._used.discard(candidate.id)
        self._count(candidate, 1)

    def _count(self, candidate: Candidate, sign: int) -> None:
        for use in candidate.device.get("consumesCounters") or ():
            left = self._left[candidate.id[:2]].get(use["counterSet"], {})
            for name, counter in use["counters"].items():
                left[name] = left.get(name, 0) + sign * names.quantity(counter["value"])

    # --- the answer --------------------------------------------------------------------------------------------------------------

    def _allocation(self, claim: Json, choice: list[tuple[str, str, Json]], found: list[tuple[_Slot, Candidate]]) -> Json:
        results = []
        for slot, candidate in found:
            driver, pool, device = candidate.id
            result: Json = {"request": slot.result_name, "driver": driver, "pool": pool, "device": device}
            if slot.admin and self._release.minor >= 32:
                result["adminAccess"] = True
            if slot.request.get("tolerations"):
                result["tolerations"] = slot.request["tolerations"]
            results.append(result)
        config: list[Json] = []
        for result_name, _, request in choice:
            for entry in (self._classes[request["deviceClassName"]].get("spec") or {}).get("config") or ():
                config.append({"source": "FromClass", "requests": [result_name], **entry})
        chosen = {name for result_name, base_name, _ in choice for name in (result_name, base_name)}
        for entry in ((claim.get("spec") or {}).get("devices") or {}).get("config") or ():
            if not entry.get("requests") or chosen & set(entry["requests"]):
                config.append({"source": "FromClaim", **entry})
        nodes = sorted({candidate.node for _, candidate in found if candidate.node})
        devices = {"results": results, **({"config": config} if config else {})}
        if not nodes:
            return {"devices": devices}
        fields = [{"key": "metadata.name", "operator": "In", "values": nodes}]
        return {"devices": devices, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]}}


def _tolerated(taints: list[Json], tolerations: list[Json]) -> bool:
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
