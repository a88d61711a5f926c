"""The scheduler's view of nodes: which there are, how many pods each has, and which of them one attempt looks at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from tools.simcluster.generated_claims import FINAL
from tools.simcluster.kinds import NODE, POD, Json, Kind
from tools.simcluster.store import Change, Store


class Nodes:
    """Kept up to date by `note`. An attempt stops looking when it has enough nodes, and the next one goes on from there."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._chance = chance
        self._nodes: dict[str, Json] = {node["metadata"]["name"]: node for node in store.each(NODE)}
        self._open: list[str] | None = None
        """Names of those that take new pods; made anew when one comes, goes or changes its mind."""
        self._pods: Counter[str] = Counter(name for pod in store.each(POD) if (name := _place(pod)))
        self._next = 0

    def note(self, kind: Kind, change: Change) -> None:
        if kind is NODE:
            name = change.object["metadata"]["name"]
            if change.type == "DELETED":
                self._nodes.pop(name, None)
                self._open = None
            else:
                before = self._nodes.get(name)
                if before is None or _is_open(before) != _is_open(change.object):
                    self._open = None
                self._nodes[name] = change.object
        elif kind is POD:
            if change.before is not None and (name := _place(change.before)):
                self._pods[name] -= 1
            if change.type != "DELETED" and (name := _place(change.object)):
                self._pods[name] += 1

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, name: str) -> Json:
        return self._nodes[name]

    def enough(self) -> int:
        """How many feasible nodes an attempt is content with: all of a hundred, a share of more (kk findNodesThatPassFilters)."""
        count = len(self._nodes)
        return count if count < 100 else max(100, count * max(5, 50 - count // 125) // 100)

    def open_to(self, pod: Json, *, among: list[str] | None = None) -> Iterator[str]:
        """Names of nodes that take the pod, as far as its claims are not concerned; those `among` the given ones, or all."""
        wanted = pod["spec"].get("nodeSelector")
        names = self._round() if among is None else (name for name in among if name in self._nodes and _is_open(self._nodes[name]))
        if not wanted:
            return names
        return (name for name in names if _carries(self._nodes[name], wanted))

    def _round(self) -> Iterator[str]:
        if self._open is None:
            self._open = [name for name, node in self._nodes.items() if _is_open(node)]
        names = self._open
        for _ in range(len(names)):
            self._next = (self._next + 1) % len(names)
            yield names[self._next]

    def emptiest(self, names: list[str]) -> str:
        """One of those with the fewest pods."""
        counts = [self._pods[name] for name in names]
        least = min(counts)
        return self._chance.choice([name for name, count in zip(names, counts, strict=True) if count == least])


def _is_open(node: Json) -> bool:
    return not (node.get("spec") or {}).get("unschedulable") and not node["metadata"].get("deletionTimestamp")


def _carries(node: Json, wanted: Json) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def _place(pod: Json) -> str:
    """Where it runs or is about to."""
    return "" if pod["status"].get("phase") in FINAL else pod["spec"].get("nodeName") or ""
