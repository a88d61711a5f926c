"""Objects whose owners are all gone (known by UID), and what is in a namespace that is gone.

After a first look at everything only what is written is looked at: an index says who depends on whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tools.simcluster.kinds import CLAIM, NAMESPACE, NODE, POD, Json, Kind
from tools.simcluster.registry import Registry
from tools.simcluster.store import Change

_OWNERS: Final = {"Node": NODE, "Pod": POD, "ResourceClaim": CLAIM}

Reference = tuple[Kind, str, str]
"""Kind, namespace and name."""


class Garbage:
    """`note` is told every write; `collect` acts on them."""

    def __init__(self, registry: Registry, log: Callable[[str], None]) -> None:
        self._registry, self._log = registry, log
        self._dependents: dict[str, set[Reference]] = {}
        """By the owner's UID."""
        self._suspects: dict[Reference, None] = {}
        for kind in registry.kinds():
            for body in registry.store.each(kind):
                self._enter(kind, body)

    def note(self, kind: Kind, change: Change) -> None:
        body = change.object
        if change.type == "DELETED":
            for owner in _owners(body):
                self._dependents.get(owner["uid"], set()).discard(_reference(kind, body))
            for dependent in self._dependents.pop(body["metadata"]["uid"], ()):
                self._suspects[dependent] = None
            if kind is NAMESPACE:
                self._suspect_namespace(body["metadata"]["name"])
        elif change.before is None or _owners(change.before) != _owners(body):
            self._enter(kind, body)

    def _enter(self, kind: Kind, body: Json) -> None:
        owners = _owners(body)
        for owner in owners:
            self._dependents.setdefault(owner["uid"], set()).add(_reference(kind, body))
        # Also at birth: the owner may have gone before.
        if owners:
            self._suspects[_reference(kind, body)] = None

    def _suspect_namespace(self, namespace: str) -> None:
        for kind in self._registry.kinds():
            for body in self._registry.store.all(kind, namespace) if kind.namespaced else ():
                self._suspects[_reference(kind, body)] = None

    def collect(self) -> bool:
        """Whether anything was deleted."""
        deleted = False
        while self._suspects:
            kind, namespace, name = suspect = next(iter(self._suspects))
            del self._suspects[suspect]
            body = self._registry.store.get(kind, namespace, name)
            if body is None or body["metadata"].get("deletionTimestamp"):
                continue
            owners = _owners(body)
            orphaned = bool(owners) and not any(self._lives(owner, namespace) for owner in owners)
            homeless = kind.namespaced and self._registry.store.get(NAMESPACE, "", namespace) is None
            if orphaned or homeless:
                self._log(f"garbage: {kind.kind} {name}")
                self._registry.delete(kind, name, namespace)
                deleted = True
        return deleted

    def _lives(self, owner: Json, namespace: str) -> bool:
        kind = _OWNERS[owner["kind"]]
        found = self._registry.store.get(kind, namespace if kind.namespaced else "", owner["name"])
        return found is not None and found["metadata"]["uid"] == owner["uid"]


def _owners(body: Json) -> list[Json]:
    return [owner for owner in body["metadata"].get("ownerReferences") or () if owner["kind"] in _OWNERS]


def _reference(kind: Kind, body: Json) -> Reference:
    return kind, body["metadata"].get("namespace", ""), body["metadata"]["name"]
