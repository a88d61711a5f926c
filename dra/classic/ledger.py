"""Who holds what in the whole cluster, in memory: the handles of all allocated claims, and decisions that are not written yet.

Rebuilt from the claims at every start; nothing here is the truth. One task at a time changes it, and nothing in it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dra.classic import placement, stock
from dra.classic.handle import Handle
from dra.classic.inventory import READY, GpuAllocationState
from dra.classic.parameters import Demand
from dra.classic.placement import Policy, Unfit
from dra.classic.stock import Stock
from dra.names import ClaimUid

REMEMBERED: Final = 256
"""Verdicts kept of a node: so many kinds of pods ask at the same time; then they are forgotten all together."""


class Ask(msgspec.Struct, frozen=True):
    """A claim that is to be allocated."""

    uid: ClaimUid
    demand: Demand


class Holding(msgspec.Struct, frozen=True, gc=False):
    """What a claim has."""

    node: str
    handle: Handle
    written: bool
    """False: decided here, and the claim does not say so yet."""


class _Node:
    def __init__(self) -> None:
        self.state: GpuAllocationState | None = None
        self.alive = False
        self.holdings: dict[ClaimUid, Handle] = {}
        self.riddles: dict[ClaimUid, str] = {}
        """Claims that have something here nobody can tell."""
        self.stock: Stock | None = None
        self.verdicts: dict[tuple[Demand, ...], str | None] = {}

    def changed(self) -> None:
        self.stock = None
        self.verdicts = {}


class Ledger:
    def __init__(self, policy: Policy, *, on_better: Callable[[str], None]) -> None:
        """`on_better(node)`: it may suit now who it did not suit before."""
        self._policy = policy
        self._on_better = on_better
        self._nodes: dict[str, _Node] = {}
        self._holdings: dict[ClaimUid, Holding] = {}
        self._blocked: dict[ClaimUid, str] = {}

    # --- what is told from outside

    def set_policy(self, policy: Policy) -> None:
        self._policy = policy
        for name, node in list(self._nodes.items()):
            node.verdicts = {}  # they say what the old one would have done
            self._on_better(name)

    def set_state(self, name: str, state: GpuAllocationState | None) -> None:
        """What the node's GpuAllocationState says; None: there is none, or it cannot be read."""
        node = self._node(name)
        node.state = state
        node.changed()
        self._forget_if_gone(name)
        self._on_better(name)

    def set_alive(self, name: str, alive: bool) -> None:
        """Whether the node's plugin lives."""
        node = self._node(name)
        if node.alive != alive:
            node.alive = alive
            node.changed()
            if alive:
                self._on_better(name)
        self._forget_if_gone(name)

    def hold(self, uid: ClaimUid, node: str, handle: Handle, *, written: bool) -> None:
        """A claim has this; what it had before is let go."""
        now = Holding(node, handle, written)
        before = self._holdings.get(uid)
        if before is not None and (before.node, before.handle) == (node, handle):
            self._holdings[uid] = now
            return
        self.release(uid)
        self._holdings[uid] = now
        at = self._node(node)
        at.holdings[uid] = handle
        at.changed()

    def block(self, uid: ClaimUid, node: str, why: str) -> None:
        """A claim has something of the node and cannot be understood: nothing more is given away there."""
        self.release(uid)
        self._blocked[uid] = node
        self._node(node).riddles[uid] = why

    def release(self, uid: ClaimUid) -> None:
        """Success for a claim that has nothing."""
        if (blocked := self._blocked.pop(uid, None)) is not None:
            self._node(blocked).riddles.pop(uid, None)
            self._on_better(blocked)
        holding = self._holdings.pop(uid, None)
        if holding is None:
            return
        at = self._node(holding.node)
        at.holdings.pop(uid, None)
        at.changed()
        self._forget_if_gone(holding.node)
        self._on_better(holding.node)

    # --- what is asked

    def holding(self, uid: ClaimUid) -> Holding | None:
        return self._holdings.get(uid)

    def holdings(self) -> Mapping[ClaimUid, Holding]:
        return self._holdings

    def nodes(self) -> Iterable[str]:
        """All that anything is known of, by name."""
        return sorted(self._nodes)

    def why_not_ready(self, name: str) -> str | None:
        """Why nothing can be allocated on a node, whatever it is; None if it can."""
        node = self._nodes.get(name)
        if node is None or node.state is None:
            return "no GpuAllocationState: no node plugin of this driver"
        if node.state.status != READY:
            return f"its GpuAllocationState is {node.state.status or 'without status'}"
        if not node.alive:
            return "its node plugin does not renew its Lease"
        return next(iter(node.riddles.values()), None)

    def why_unsuitable(self, name: str, asks: Sequence[Ask]) -> str | None:
        """Why a node cannot have all these claims together; None if it can."""
        return self.verdicts((name,), asks)[name]

    def verdicts(self, names: Iterable[str], asks: Sequence[Ask]) -> dict[str, str | None]:
        """The same of many nodes, by name."""
        if any(ask.uid in self._holdings for ask in asks):
            return {name: self._why_unplaced(name, asks) for name in names}
        key = tuple(ask.demand for ask in asks)
        return {name: self._verdict(name, key) for name in names}

    def _why_unplaced(self, name: str, asks: Sequence[Ask]) -> str | None:
        if (why := self.why_not_ready(name)) is not None:
            return why
        found = self._place(name, asks)
        return found.why if isinstance(found, Unfit) else None

    def _verdict(self, name: str, key: tuple[Demand, ...]) -> str | None:
        if (why := self.why_not_ready(name)) is not None:
            return why
        node = self._nodes[name]
        if key not in node.verdicts:
            if len(node.verdicts) >= REMEMBERED:
                node.verdicts = {}
            trial = placement.place(self._stock(node), key, self._policy, name)
            node.verdicts[key] = trial.why if isinstance(trial, Unfit) else None
        return node.verdicts[key]

    def decide(self, name: str, asks: Sequence[Ask]) -> dict[ClaimUid, Handle] | Unfit:
        """Give a node's devices to claims, all or none, and hold them until they are written or outdated.

        Asking again for the same claims and node answers the same. What claims say in the API server that they have stays as it is.
        """
        if (why := self.why_not_ready(name)) is not None:
            return Unfit(why)
        if any(ask.uid in self._holdings and self._holdings[ask.uid].written for ask in asks):
            return Unfit("a claim of them was allocated meanwhile")
        found = self._place(name, asks)
        if isinstance(found, Unfit):
            return found
        for uid, handle in found.items():
            self.hold(uid, name, handle, written=False)
        return found

    def _place(self, name: str, asks: Sequence[Ask]) -> dict[ClaimUid, Handle] | Unfit:
        """Where the claims would go. Those decided for this node stay where they are; those decided for another count as not decided."""
        decided = {ask.uid: self._holdings[ask.uid] for ask in asks if ask.uid in self._holdings}
        kept = {uid: holding.handle for uid, holding in decided.items() if holding.node == name}
        rest = [ask for ask in asks if ask.uid not in kept]
        node = self._nodes[name]
        added = placement.place(self._stock(node), [ask.demand for ask in rest], self._policy, name)
        if not isinstance(added, Unfit):
            return kept | dict(zip((ask.uid for ask in rest), added, strict=True))
        if not kept or any(decided[uid].written for uid in kept):
            return added
        # What was decided for some of the pod's claims may be in the way of deciding them all together.
        assert node.state is not None
        free = stock.of_node(node.state, [handle for uid, handle in node.holdings.items() if uid not in kept])
        anew = placement.place(free, [ask.demand for ask in asks], self._policy, name)
        return anew if isinstance(anew, Unfit) else dict(zip((ask.uid for ask in asks), anew, strict=True))

    def _forget_if_gone(self, name: str) -> None:
        """A node of which nothing is left: it was deleted, or never had a plugin of ours."""
        node = self._nodes[name]
        if node.state is None and not (node.alive or node.holdings or node.riddles):
            del self._nodes[name]

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())

    def _stock(self, node: _Node) -> Stock:
        if node.stock is None:
            assert node.state is not None
            node.stock = stock.of_node(node.state, node.holdings.values())
        return node.stock
