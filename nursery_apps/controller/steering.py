"""Sends pods that wait to different nodes where nodes are scarce.

A scheduler that hears from each of a hundred pods which fifty nodes suit it chooses among the same fifty for all, most of them ask in vain
again, and each time they back off for twice as long. So each is left one node, on which it fits beside those that were sent there before.
That is advice: it holds nothing, and a pod that comes to the node first gets what is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from dra.classic.ledger import Ask, Ledger
from dra.kube.classic import SchedulingSpec
from nursery_apps.controller.stores import Key

ADVICE_SECONDS: Final = 15.0
"""A scheduler tries again after 10 s at most (podMaxBackoffSeconds). A pod that has not come by then cannot be there for other reasons."""
SCARCE: Final = 2
"""Nodes for each pod that waits; where there are more, chance sends few pods to the same."""


class _Advice(msgspec.Struct, frozen=True):
    node: str
    asks: tuple[Ask, ...]
    spec: SchedulingSpec
    """What the scheduler asked for."""
    until: float


class Steering:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._given: dict[Key, _Advice] = {}

    def choose(self, context: Key, spec: SchedulingSpec, asks: tuple[Ask, ...], suitable: Sequence[str], waiting: int) -> str | None:
        """The one of the suitable nodes that the pod is sent to; None to leave it all of them.

        Args:
            waiting: pods that wait, this one too.
        """
        now = trio.current_time()
        before = self._given.get(context)
        if before is not None and before.spec != spec:
            before = None  # the scheduler has come and found the node taken
            del self._given[context]
        if len(suitable) > SCARCE * waiting or (before is not None and before.until <= now):
            return None
        until = before.until if before is not None else now + ADVICE_SECONDS
        self.forget(context)
        sent: defaultdict[str, list[Ask]] = defaultdict(list)
        for advice in self._given.values():
            if now < advice.until:
                sent[advice.node] += advice.asks
        for node in suitable:
            if self._ledger.why_unsuitable(node, (*sent[node], *asks)) is None:
                self._given[context] = _Advice(node, asks, spec, until)
                return node
        return None

    def forget(self, context: Key) -> None:
        """The pod has got what it waited for, or is gone."""
        self._given.pop(context, None)
