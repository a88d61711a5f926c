"""Where on a node the claims of a pod go: all of them together, or nowhere.

VFs come first, since cutting a card takes it away from everybody else; then GPUs; then what may be either. Demands that fit fewer devices
go before those that fit more, and where that is not enough a bounded search tries other ways.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from dra.classic import vf_planning
from dra.classic.handle import VERSION, Handle, Part, run_length
from dra.classic.inventory import AllocatableGpu, DeviceType
from dra.classic.parameters import Demand
from dra.classic.stock import CardStock, FoundVf, Stock
from dra.classic.vf_planning import VfPlan, VfSize, VfWish

TRIES: Final = 500
"""Combinations of cards looked at before a node counts as unfit: some milliseconds. A pod with so many ways to fit and none that fits has
ten claims of different sizes on one node."""
CUTS_TRIED: Final = 8
"""Other choices of the card to be cut first: as many cards as large nodes have."""


class Policy(msgspec.Struct, frozen=True):
    """Which of several GPUs that fit is taken."""

    order: Literal["none", "balanced", "packed"] = "none"
    """By uid; most left first; least left first."""
    resource: Literal["memory", "millicores"] = "memory"
    """What is meant by left."""
    vf_memory: Mapping[str, int] = {}
    """MiB of VFs nobody asked a size for, by PCI id."""


class Unfit(msgspec.Struct, frozen=True):
    """The node cannot have the pod."""

    why: str


class _Unit(msgspec.Struct, frozen=True, gc=False):
    """One device of a demand."""

    of: int
    demand: Demand
    wish: VfWish


def place(stock: Stock, demands: Sequence[Demand], policy: Policy, node: str) -> list[Handle] | Unfit:
    """A handle for each demand, in their order. The stock stays as it is.

    Args:
        demands: of all claims of a pod that are still to be allocated.
    """
    order = sorted(range(len(demands)), key=lambda at: _most_demanding(demands[at]))
    vfs, gpus, either = (
        [at for at in order if not demands[at].of_class.monitor and demands[at].of_claim.type is kind]
        for kind in (DeviceType.VF, DeviceType.GPU, DeviceType.ANY)
    )
    why: Unfit | None = None
    # A card is cut for those who need VFs, and spare ones do for who takes either; if that is too few, it is cut for both.
    for need_vfs, rest in ((vfs, either), ([*vfs, *either], []))[: 2 if vfs and either else 1]:
        # A card that is cut is gone for the rest of the pod, so if something finds no place another card may be the better one to cut.
        for rotation in range(CUTS_TRIED if vfs or either else 1):
            trial = _Trial(stock, demands, policy, rotation)
            failed = trial.place_vfs(need_vfs) or trial.place_gpus(gpus) or trial.place_either(rest)
            if failed is None:
                return [trial.handle(at, node) for at in range(len(demands))]
            why = why or failed
            if rotation + 1 >= trial.choices:
                break
    assert why is not None
    return why


class _Trial:
    """One attempt, on copies of the cards it changes."""

    def __init__(self, stock: Stock, demands: Sequence[Demand], policy: Policy, rotation: int) -> None:
        self._demands = demands
        self._policy = policy
        self._rotation = rotation
        self._cards = list(stock.cards)
        self._copied: set[int] = set()
        self._found = list(stock.vfs)
        self._parts: dict[int, list[Part]] = {}
        self._given: dict[int, dict[int, list[int]]] = {}
        """VFs by demand and card."""
        self.choices = 1
        """How many cards there were to cut."""

    def handle(self, at: int, node: str) -> Handle:
        demand = self._demands[at]
        parts = list(self._parts.get(at, ()))
        for index, numbers in self._given.get(at, {}).items():
            card = self._cards[index]
            layout = run_length(size.profile for size in card.sizes)
            parts.append(Part(uid=card.gpu.uid, vfs=tuple(sorted(numbers)), layout=layout))
        return Handle(version=VERSION, node=node, parts=tuple(parts), shared=demand.of_class.shared, monitor=demand.of_class.monitor)

    # --- VFs

    def place_vfs(self, order: Iterable[int]) -> Unfit | None:
        units = self._units(order)
        left = self._cut(self._from_what_is_there(units))
        return _no_vf(left[0], len(left), len(units)) if left else None

    def _units(self, order: Iterable[int]) -> list[_Unit]:
        units = []
        for at in order:
            wanted = self._demands[at].of_claim
            units += [_Unit(at, self._demands[at], VfWish(wanted.memory, wanted.millicores))] * wanted.count
        return sorted(units, key=lambda unit: unit.wish, reverse=True)

    def _from_what_is_there(self, units: Iterable[_Unit]) -> list[_Unit]:
        """Give each the smallest free VF that will do; returns those for whom there is none."""
        left = []
        for unit in units:
            best = min(self._fitting_vfs(unit), key=lambda found: (found[0].memory, found[0].millicores, found[1]), default=None)
            if best is None:
                left.append(unit)
                continue
            _, _, take = best
            take()
        return left

    def _fitting_vfs(self, unit: _Unit) -> Iterator[tuple[VfSize, str, Callable[[], None]]]:
        for at, found in enumerate(self._found):
            if found.size.meets(unit.wish) and unit.demand.of_class.admits(found.vf, found.card_name):
                yield found.size, found.vf.uid, lambda at=at: self._take_found(unit, at)  # type: ignore[misc]
        for index, card in enumerate(self._cards):
            if not card.free or card.whole or not unit.demand.of_class.admits(_as_vf(card.gpu), card.gpu.name):
                continue
            fitting = [number for number in card.free if card.sizes[number - 1].meets(unit.wish)]
            if fitting:
                number = min(fitting, key=lambda number, card=card: (card.sizes[number - 1].memory, number))  # type: ignore[misc]
                size = card.sizes[number - 1]
                yield size, card.gpu.uid, lambda index=index, number=number: self._take_vf(unit, index, number)  # type: ignore[misc]

    def _take_found(self, unit: _Unit, at: int) -> None:
        found: FoundVf = self._found.pop(at)
        vf = found.vf
        self._parts.setdefault(unit.of, []).append(Part(uid=vf.uid, parent=vf.parentuid, index=vf.vfindex + 1))

    def _take_vf(self, unit: _Unit, index: int, number: int) -> None:
        card = self._own(index)
        card.free = tuple(other for other in card.free if other != number)
        self._given.setdefault(unit.of, {}).setdefault(index, []).append(number)

    def _cut(self, units: list[_Unit]) -> list[_Unit]:
        """Cut untouched cards for those who have no VF yet; returns those who still have none."""
        if not units:
            return units
        cards = [index for index in self._ordered() if self._cards[index].untouched and self._cards[index].gpu.maxvfs > 0]
        self.choices = max(self.choices, len(cards))
        turn = self._rotation % len(cards) if cards else 0
        for index in cards[turn:] + cards[:turn]:
            gpu = self._cards[index].gpu
            mine = [unit for unit in units if unit.demand.of_class.admits(_as_vf(gpu), gpu.name)]
            if not mine:
                continue
            plan = self._plan(gpu, mine)
            while plan is None and mine:  # the card is too small for the largest
                mine = [unit for unit in mine if unit.wish != mine[0].wish]
                plan = self._plan(gpu, mine)
            if plan is None:
                continue
            card = self._own(index)
            card.sizes, card.free = plan.sizes, tuple(range(1, len(plan.sizes) + 1))
            for unit, number in zip(mine, plan.given, strict=False):
                self._take_vf(unit, index, number)
            served = mine[: len(plan.given)]
            # Spare VFs may do for others of the pod.
            units = self._from_what_is_there(_without(units, served))
            if not units:
                break
        return units

    def _plan(self, gpu: AllocatableGpu, units: Sequence[_Unit]) -> VfPlan | None:
        wishes = tuple(unit.wish for unit in units)
        return vf_planning.plan(vf_planning.shape_of(gpu), wishes, self._policy.vf_memory.get(gpu.model, 0))

    # --- GPUs

    def place_gpus(self, order: Sequence[int]) -> Unfit | None:
        tries = [TRIES]
        if self._search(order, 0, tries):
            return None
        return self._no_gpu(order)

    def _search(self, order: Sequence[int], depth: int, tries: list[int]) -> bool:
        if depth == len(order):
            return True
        at = order[depth]
        demand = self._demands[at]
        fitting = [index for index in self._ordered() if _fits(self._cards[index], demand)]
        for chosen in itertools.combinations(fitting, demand.of_claim.count):
            tries[0] -= 1
            if tries[0] < 0:
                return False
            kept = [(index, self._cards[index]) for index in chosen]
            parts = [self._take_gpu(index, demand) for index in chosen]
            if self._search(order, depth + 1, tries):
                self._parts.setdefault(at, []).extend(parts)
                return True
            for index, card in kept:
                self._cards[index] = card
                self._copied.discard(index)
        return False

    def _take_gpu(self, index: int, demand: Demand) -> Part:
        self._copied.discard(index)  # always a new copy: a search goes back to what was before
        card = self._own(index)
        if demand.of_class.shared:
            memory, millicores = demand.of_claim.memory, max(1, demand.of_claim.millicores)
            card.shared = True
        else:
            memory, millicores = card.gpu.memory, card.gpu.millicores
            card.whole = True
        card.memory -= memory
        card.millicores -= millicores
        return Part(uid=card.gpu.uid, memory=memory, millicores=millicores)

    def _no_gpu(self, order: Sequence[int]) -> Unfit:
        demand = self._demands[order[0]]
        wanted = demand.of_claim
        asked = ", ".join(f"{amount} {unit}" for amount, unit in ((wanted.memory, "MiB"), (wanted.millicores, "millicores")) if amount)
        fitting = sum(_fits(card, demand) for card in self._cards)
        what = f"{'a shared' if demand.of_class.shared else 'a whole'} GPU{f' with {asked}' if asked else ''}"
        others = f", beside {len(order) - 1} other claims of the pod" if len(order) > 1 else ""
        return Unfit(f"{wanted.count} of {what} wanted{others}; {fitting} of {len(self._cards)} fit")

    # --- either

    def place_either(self, order: Iterable[int]) -> Unfit | None:
        units = self._units(order)
        left = self._cut(self._from_what_is_there(units))
        for unit in left:
            used = {part.uid for part in self._parts.get(unit.of, ())}
            index = next((i for i in self._ordered() if _fits(self._cards[i], unit.demand) and self._cards[i].gpu.uid not in used), None)
            if index is None:
                return Unfit(f"{_no_vf(unit, 1, len(units)).why}, and no GPU either")
            self._parts.setdefault(unit.of, []).append(self._take_gpu(index, unit.demand))
        return None

    # --- cards

    def _own(self, index: int) -> CardStock:
        if index not in self._copied:
            self._copied.add(index)
            self._cards[index] = msgspec.structs.replace(self._cards[index])
        return self._cards[index]

    def _ordered(self) -> Sequence[int]:
        if self._policy.order == "none":
            return range(len(self._cards))
        sign = -1 if self._policy.order == "balanced" else 1
        left: Callable[[CardStock], int] = (
            (lambda card: card.memory) if self._policy.resource == "memory" else (lambda card: card.millicores)
        )
        return sorted(range(len(self._cards)), key=lambda index: (sign * left(self._cards[index]), index))


def _fits(card: CardStock, demand: Demand) -> bool:
    if not card.usable or card.whole or card.sizes:
        return False
    wanted = demand.of_claim
    if demand.of_class.shared:
        if card.memory < wanted.memory or card.millicores < max(1, wanted.millicores):
            return False
    elif card.shared or card.gpu.memory < wanted.memory or card.gpu.millicores < wanted.millicores:
        return False
    return demand.of_class.admits(card.gpu)


def _most_demanding(demand: Demand) -> tuple[int, ...]:
    wanted = demand.of_claim
    return -len(demand.of_class.selectors), -wanted.memory, -wanted.millicores, -wanted.count


def _as_vf(card: AllocatableGpu) -> AllocatableGpu:
    """What a class's selectors see of a VF that is not there yet."""
    return msgspec.structs.replace(card, type=DeviceType.VF)


def _without(units: Iterable[_Unit], served: Iterable[_Unit]) -> list[_Unit]:
    """Equal units are interchangeable."""
    taken = Counter((unit.of, unit.wish) for unit in served)
    left = []
    for unit in units:
        if taken[unit.of, unit.wish]:
            taken[unit.of, unit.wish] -= 1
        else:
            left.append(unit)
    return left


def _no_vf(unit: _Unit, missing: int, wanted: int) -> Unfit:
    asked = ", ".join(f"{amount} {name}" for amount, name in ((unit.wish.memory, "MiB"), (unit.wish.millicores, "millicores")) if amount)
    return Unfit(
        f"{missing} of {wanted} VFs have no place: none is free{f' with {asked}' if asked else ''}, and no free card can be cut so"
    )
