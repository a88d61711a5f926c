"""From what sources say of GPUs, with the time, to what is held against each: a book of cases that anybody may ask at any moment.

A condition is held against a GPU once it has lasted (at once where it is no measurement), and until it has been away for a quiet period.
Each time it comes back soon the next quiet period is twice as long: a GPU that flaps is not given to pod after pod.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from dra.health.conditions import CONDITIONS, Condition
from dra.health.facts import Fact, Facts, Severity
from dra.health.told import Level
from dra.names import Bdf

UNRESPONSIVE: Final = "unresponsive"
"""The one condition that does not say how a GPU is, but that nobody can tell."""
TEXT_CHARACTERS: Final = 256
"""Of what is said of one condition: four of them fit into the 1024 bytes of a message."""


class Ailment(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that is held against a GPU."""

    condition: str
    severity: Severity
    text: str
    since: float
    """Seconds since the epoch."""
    healing: bool = False
    """It is gone, and its quiet period runs."""
    of: Bdf | None = None
    """The PF, where it is not the VF's own."""


class Verdict(msgspec.Struct, frozen=True):
    level: Level
    ailments: tuple[Ailment, ...] = ()
    """The gravest first."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """When something counts; all in seconds."""

    hold_down: float
    """How long a measurement must be bad."""
    quiet: float
    """How long it must be fine again."""
    quiet_most: float
    """What flapping makes of that at most; also how long it takes to be forgotten."""
    ignore: frozenset[str] = frozenset()
    """Conditions that are nothing to worry about here."""


class Hold(msgspec.Struct):
    """One condition at one severity or worse."""

    up: float | None = None
    """Since when it is so."""
    down: float | None = None
    """Since when it is not so any more, while it is still held."""
    held: float | None = None
    """Since when it is held."""
    released: float | None = None
    """When it was last let go; None if never, or too long ago to matter."""
    flaps: int = 0
    """How often it came back since it was last well for long."""
    text: str = ""
    """What was said when it came to be so. Figures move, and whoever is told of an ailment is not told again for that."""


class Case(msgspec.Struct):
    """One condition of one GPU."""

    degraded: Hold
    failed: Hold


class Book:
    """Owns all cases. Every method takes the time; one that goes back only makes things last a little longer."""

    def __init__(self) -> None:
        self._facts: dict[Bdf, dict[str, Facts]] = {}
        self._cases: dict[Bdf, dict[str, Case]] = {}

    def tell(self, now: float, source: str, bdf: Bdf, facts: Facts | None, terms: Terms) -> None:
        """All that `source` says of a GPU from now on; None: nothing any more."""
        self._settle(now, bdf, terms)  # what ran out before this was said did so
        told = self._facts.setdefault(bdf, {})
        if facts is None:
            told.pop(source, None)
        else:
            told[source] = facts
        self._settle(now, bdf, terms)

    def forget(self, bdf: Bdf) -> None:
        """Another card is there now, or none."""
        self._facts.pop(bdf, None)
        self._cases.pop(bdf, None)

    def known(self) -> Collection[Bdf]:
        return self._facts.keys() | self._cases.keys()

    def look(self, now: float, parents: Mapping[Bdf, Bdf | None], terms: Terms) -> dict[Bdf, Verdict]:
        """What is held against each of these GPUs now.

        Args:
            parents: by GPU, its PF if it is a VF: what is wrong with a card is wrong with its VFs.
        """
        for bdf in self._cases:
            self._settle(now, bdf, terms)
        found = {}
        for bdf, parent in parents.items():
            ailments = list(self._ailments(bdf, terms))
            heard = bool(self._facts.get(bdf))
            if parent is not None:
                own = {ailment.condition: ailment.severity for ailment in ailments}
                inherited = (msgspec.structs.replace(ailment, of=parent) for ailment in self._ailments(parent, terms))
                ailments += [ailment for ailment in inherited if ailment.severity > own.get(ailment.condition, Severity.FINE)]
                heard = heard or bool(self._facts.get(parent))
            ailments.sort(key=lambda ailment: (-ailment.severity, ailment.healing, ailment.condition, ailment.of or ""))
            found[bdf] = Verdict(_level(ailments, heard=heard), tuple(ailments))
        return found

    def due(self, terms: Terms) -> float:
        """When the next of what is pending comes to pass if nobody says anything; infinity if nothing is."""
        pending = ((key, case) for cases in self._cases.values() for key, case in cases.items() if key not in terms.ignore)
        return min((_due(key, case, terms) for key, case in pending), default=math.inf)

    # --- what outlives the program

    def dump(self) -> dict[Bdf, dict[str, Case]]:
        """For msgspec; not to be changed."""
        return self._cases

    def load(self, cases: Mapping[Bdf, Mapping[str, Case]], now: float) -> None:
        """Of an earlier life. Conditions that this version does not know are left out, and no time lies ahead, or before there was any: a
        clock that was wrong then, or a torn file, must not hold anything for ever."""
        for bdf, by_condition in cases.items():
            known = {key: case for key, case in by_condition.items() if key in CONDITIONS}
            for hold in (hold for case in known.values() for hold in (case.degraded, case.failed)):
                hold.up, hold.down, hold.held, hold.released = (
                    None if at is None else max(0.0, min(at, now)) for at in (hold.up, hold.down, hold.held, hold.released)
                )
                hold.flaps = max(0, hold.flaps)
            self._cases[bdf] = known

    # --- one case

    def _settle(self, now: float, bdf: Bdf, terms: Terms) -> None:
        cases = self._cases.setdefault(bdf, {})
        worst = _worst(self._facts.get(bdf, {}).values())
        for key in cases.keys() | worst.keys():
            fact = worst.get(key)
            severity = fact.severity if fact is not None else Severity.FINE
            if key not in cases:
                if severity is Severity.FINE:
                    continue
                cases[key] = Case(Hold(), Hold())
            case = cases[key]
            for hold, least in ((case.degraded, Severity.DEGRADED), (case.failed, Severity.FAILED)):
                is_so = severity >= least
                # Until it is held, when it comes back, and while a graver one is told in its place, nobody has been told of it.
                if fact is not None and is_so and (hold.held is None or hold.down is not None or hold is not _told(case)):
                    hold.text = fact.text[:TEXT_CHARACTERS]
                _advance(hold, now, CONDITIONS[key], is_so=is_so, terms=terms)
            if _is_past(case, now, terms):
                del cases[key]

    def _ailments(self, bdf: Bdf, terms: Terms) -> Iterable[Ailment]:
        for key, case in self._cases.get(bdf, {}).items():
            hold = _told(case)
            if hold.held is None or key in terms.ignore:
                continue
            severity = Severity.FAILED if hold is case.failed else Severity.DEGRADED
            yield Ailment(condition=key, severity=severity, text=hold.text, since=hold.held, healing=hold.down is not None)


def _told(case: Case) -> Hold:
    """The one that the verdict is about, if either is held."""
    return case.failed if case.failed.held is not None else case.degraded


def _worst(told: Iterable[Facts]) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for facts in told:
        for key, fact in facts.items():
            if key not in found or fact.severity > found[key].severity:
                found[key] = fact
    return found


def _advance(hold: Hold, now: float, condition: Condition, *, is_so: bool, terms: Terms) -> None:
    if is_so:
        hold.down = None
        hold.up = now if hold.up is None else min(hold.up, now)
        if hold.held is None and now - hold.up >= _hold_down(condition, terms):
            hold.held = now
            hold.flaps = 0 if _is_forgotten(hold, now, terms) else hold.flaps + 1
        return
    hold.up = None
    if hold.held is not None:
        hold.down = now if hold.down is None else min(hold.down, now)
        if now - hold.down >= _quiet(hold, condition, terms):
            hold.held, hold.down, hold.released = None, None, now


def _hold_down(condition: Condition, terms: Terms) -> float:
    return 0.0 if condition.at_once else terms.hold_down


def _quiet(hold: Hold, condition: Condition, terms: Terms) -> float:
    if condition.by_hand and not hold.flaps:
        return 0.0
    # As an exponent: thousands of flaps make no number that is too large.
    return float(min(terms.quiet_most, terms.quiet * 2 ** min(hold.flaps, 32)))


def _due(key: str, case: Case, terms: Terms) -> float:
    found = math.inf
    for hold in (case.degraded, case.failed):
        if hold.up is not None and hold.held is None:
            found = min(found, hold.up + _hold_down(CONDITIONS[key], terms))
        if hold.down is not None:
            found = min(found, hold.down + _quiet(hold, CONDITIONS[key], terms))
    return found


def _is_past(case: Case, now: float, terms: Terms) -> bool:
    """Whether it makes no difference any more."""
    return all(hold.up is None and hold.held is None and _is_forgotten(hold, now, terms) for hold in (case.degraded, case.failed))


def _is_forgotten(hold: Hold, now: float, terms: Terms) -> bool:
    return hold.released is None or now - hold.released >= terms.quiet_most


def _level(ailments: Iterable[Ailment], *, heard: bool) -> Level:
    telling = [ailment.severity for ailment in ailments if ailment.condition != UNRESPONSIVE]
    if Severity.FAILED in telling:
        return Level.FAILED
    if len(telling) < len(list(ailments)) or not heard:
        return Level.UNKNOWN
    return Level.DEGRADED if telling else Level.OK
