"""Who waits for what: which pods' contexts use a claim, which ask about a node, and which claims fit nowhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from nursery_apps.controller.stores import Key


class Waiting:
    def __init__(self) -> None:
        self._contexts_of: defaultdict[Key, set[Key]] = defaultdict(set)
        self._claims_of: dict[Key, set[Key]] = {}
        self._asking: defaultdict[str, set[Key]] = defaultdict(set)
        self._asked: dict[Key, list[str]] = {}
        self.homeless: set[Key] = set()
        """Immediate claims that fit no node."""

    def __len__(self) -> int:
        return len(self._asked) + len(self.homeless)

    def contexts_of(self, claim: Key) -> Collection[Key]:
        """Contexts of pods that use a claim."""
        return self._contexts_of.get(claim, ())

    def asking(self, node: str) -> Collection[Key]:
        """Contexts that ask about a node and are not served yet."""
        return self._asking.get(node, ())

    def use(self, context: Key, claims: set[Key]) -> None:
        """These are the claims of a context's pod."""
        for claim in self._claims_of.get(context, set()) - claims:
            self._unuse(context, claim)
        for claim in claims:
            self._contexts_of[claim].add(context)
        self._claims_of[context] = claims

    def ask(self, context: Key, nodes: list[str]) -> None:
        if self._asked.get(context) == nodes:
            return
        self.stop_asking(context)
        self._asked[context] = nodes
        for node in nodes:
            self._asking[node].add(context)

    def stop_asking(self, context: Key) -> None:
        for node in self._asked.pop(context, ()):
            self._asking[node].discard(context)
            if not self._asking[node]:
                del self._asking[node]

    def leave(self, context: Key) -> Iterable[Key]:
        """The context is gone: which claims no context uses any more."""
        self.stop_asking(context)
        claims: Collection[Key] = self._claims_of.pop(context, ())
        for claim in claims:
            self._unuse(context, claim)
        return [claim for claim in claims if not self._contexts_of.get(claim)]

    def _unuse(self, context: Key, claim: Key) -> None:
        self._contexts_of[claim].discard(context)
        if not self._contexts_of[claim]:
            del self._contexts_of[claim]
