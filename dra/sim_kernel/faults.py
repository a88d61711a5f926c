"""What goes wrong, or slowly, on purpose: rules by operation and path."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

OPERATIONS = frozenset(
    (
        "read",
        "write",
        "list",
        "link",
        "node",
        "query",
        "bind",
        "unbind",
        "probe",
        "remove",
        "rescan",
        "sriov",
        "vf",
        "reset",
        "plug",
        "unplug",
    )
)
"""The first six are calls of the seam; the rest are acts, known by the path of the PCI function and by its address. `vf` is the making
and the taking away of one VF, which can take long or hang. `probe` is a driver's probe function: it can fail, what takes long is the `bind`
around it."""


class Rule(msgspec.Struct):
    operation: str
    path: str
    """Glob over the whole path, as asked for or with links resolved."""
    errno: int = 0
    times: int | None = None
    """How often it still applies; None: until cleared."""
    seconds: float = 0.0
    gate: Callable[[], None] | None = None
    """Called in the caller's thread; what it blocks on is the caller's to release."""


class Trouble(msgspec.Struct, frozen=True):
    """What one call meets: first the seconds, then the gates, then the errno (0: none)."""

    seconds: float = 0.0
    gates: tuple[Callable[[], None], ...] = ()
    errno: int = 0


NONE: Final = Trouble()


class Faults:
    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self.paused = False
        """Nothing goes wrong: what happens has happened before."""

    def fail(self, path: str, operation: str, errno: int, times: int | None = 1) -> None:
        """Make the operation answer `errno` that many times (None: always)."""
        self._add(Rule(operation, path, errno=errno, times=times))

    def delay(self, operation: str, seconds: float, path: str = "*") -> None:
        """Make every such operation take that long; 0 takes the delay away."""
        self._rules = [rule for rule in self._rules if not (rule.seconds and (rule.operation, rule.path) == (operation, path))]
        if seconds > 0:
            self._add(Rule(operation, path, seconds=seconds))

    def hang(self, path: str, operation: str, gate: Callable[[], None]) -> None:
        """Make the operation block on `gate` until the rule is released."""
        self._add(Rule(operation, path, gate=gate))

    def release(self, path: str, operation: str) -> None:
        """Take away the hang rules of exactly this path and operation."""
        self._rules = [rule for rule in self._rules if rule.gate is None or (rule.operation, rule.path) != (operation, path)]

    def clear(self) -> None:
        self._rules.clear()

    def meet(self, operation: str, *paths: str) -> Trouble:
        """What a call of `operation` on something known by these paths meets now; counts it."""
        if self.paused:
            return NONE
        seconds, gates, errno = 0.0, [], 0
        for rule in self._matching(operation, paths):
            seconds += rule.seconds
            if rule.gate is not None:
                gates.append(rule.gate)
            if rule.errno and not errno:
                errno = rule.errno
                if rule.times is not None:
                    rule.times -= 1
        self._rules = [rule for rule in self._rules if rule.times != 0]
        return Trouble(seconds, tuple(gates), errno)

    def _matching(self, operation: str, paths: tuple[str, ...]) -> Iterator[Rule]:
        for rule in self._rules:
            if rule.operation == operation and any(fnmatch.fnmatchcase(path, rule.path) for path in paths):
                yield rule

    def _add(self, rule: Rule) -> None:
        if rule.operation not in OPERATIONS:
            raise ValueError(f"{rule.operation!r} is not an operation; known are {', '.join(sorted(OPERATIONS))}")
        self._rules.append(rule)
