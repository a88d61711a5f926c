"""When something is held against a GPU, for how long, and that nothing is held without a reason or for ever."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.health.conditions import CONDITIONS
from dra.health.facts import Fact, Severity
from dra.health.told import Level
from dra.health.verdict import TEXT_CHARACTERS, Book, Case, Terms, Verdict
from dra.names import Bdf

GPU, VF = Bdf("0000:18:00.0"), Bdf("0000:18:00.1")
TERMS = Terms(hold_down=10, quiet=60, quiet_most=3600)
FINE, DEGRADED, FAILED = Severity.FINE, Severity.DEGRADED, Severity.FAILED
T = 1_800_000_000.0


class Told:
    """A book and a clock: `told(5, temperature=FAILED)` tells so five seconds later."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.book, self.terms, self.now = Book(), terms, T

    def __call__(self, later: float, source: str = "sysfs", *, bdf: Bdf = GPU, **severities: Severity) -> Verdict:
        self.now += later
        facts = {key.replace("_", "-"): Fact(key.replace("_", "-"), severity, f"{key} text") for key, severity in severities.items()}
        self.book.tell(self.now, source, bdf, facts, self.terms)
        return self.after(0)

    def lost(self, later: float, source: str = "sysfs") -> Verdict:
        self.now += later
        self.book.tell(self.now, source, GPU, None, self.terms)
        return self.after(0)

    def after(self, later: float, bdf: Bdf = GPU) -> Verdict:
        self.now += later
        return self.book.look(self.now, {GPU: None, VF: GPU}, self.terms)[bdf]

    def due(self) -> float:
        return self.book.due(self.terms) - self.now


def test_a_measurement_counts_when_it_has_lasted() -> None:
    told = Told()
    assert told(0, temperature=FINE).level is Level.OK
    assert told(0, temperature=FAILED).level is Level.OK
    assert told.due() == 10
    assert told.after(9.9).level is Level.OK
    verdict = told.after(0.1)
    assert verdict.level is Level.FAILED
    [ailment] = verdict.ailments
    assert (ailment.condition, ailment.severity, ailment.text, ailment.since, ailment.healing) == (
        "temperature",
        FAILED,
        "temperature text",
        T + 10,
        False,
    )


def test_a_spike_is_nothing() -> None:
    told = Told()
    told(0, temperature=FAILED)
    told(9, temperature=FINE)
    assert told(9, temperature=FAILED).level is Level.OK
    assert told.after(9).level is Level.OK


def test_what_is_no_measurement_counts_at_once() -> None:
    told = Told()
    assert told(0, wedged=FAILED).level is Level.FAILED
    assert told.due() == math.inf


def test_it_is_held_until_the_quiet_period_is_over_and_said_to_heal_meanwhile() -> None:
    told = Told()
    told(0, pcie=FAILED)
    [ailment] = told(100, pcie=FINE).ailments
    assert ailment.healing and ailment.severity is FAILED
    assert told.due() == 60
    assert told.after(59).level is Level.FAILED
    assert told.after(1) == Verdict(Level.OK)


def test_what_comes_back_within_the_quiet_period_was_never_away() -> None:
    told = Told()
    told(0, pcie=FAILED)
    told(10, pcie=FINE)
    [ailment] = told(50, pcie=FAILED).ailments
    assert not ailment.healing and ailment.since == T
    told(1, pcie=FINE)
    assert told.due() == 60, "it has not flapped"


def test_each_return_doubles_the_quiet_period_up_to_the_most_and_good_conduct_is_rewarded() -> None:
    told = Told()
    periods = []
    for _ in range(9):
        told(1, pcie=FAILED)
        told(1, pcie=FINE)
        periods.append(told.due())
        told.after(told.due())
    assert periods == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    told(3600, pcie=FAILED)
    told(0, pcie=FINE)
    assert told.due() == 60


def test_what_is_mostly_done_by_hand_is_over_at_once_unless_it_comes_back_soon() -> None:
    told = Told()
    assert told(0, absent=FAILED).level is Level.FAILED
    assert told(5, absent=FINE).level is Level.OK
    told(5, absent=FAILED)
    assert told(0, absent=FINE).level is Level.FAILED
    assert told.due() == 120


def test_worse_counts_as_soon_as_it_may_and_better_after_a_quiet_period() -> None:
    told = Told()
    assert told(0, memory=DEGRADED).level is Level.DEGRADED
    assert told(1, memory=FAILED).level is Level.FAILED
    assert told(1, memory=DEGRADED).level is Level.FAILED
    assert told.after(60).level is Level.DEGRADED
    told(0, memory=FINE)
    assert told.after(60).level is Level.OK


def test_of_two_sources_the_worse_word_counts() -> None:
    told = Told()
    told(0, "xpumd", memory=FAILED)
    assert told(5, "sysfs", memory=FINE).level is Level.FAILED
    assert not told.after(100).ailments[0].healing
    told(0, "xpumd", memory=FINE)
    assert told.after(60).level is Level.OK


def test_a_source_that_falls_silent_is_no_illness_and_what_it_said_passes() -> None:
    told = Told()
    told(0, "sysfs", memory=FINE)
    told(0, "xpumd", memory=FAILED)
    assert told.lost(0, "xpumd").level is Level.FAILED
    assert told.after(60).level is Level.OK


def test_of_a_gpu_that_nobody_speaks_of_nothing_is_known() -> None:
    told = Told()
    assert told.after(0).level is Level.UNKNOWN
    told(0, temperature=FINE)
    assert told.lost(1).level is Level.UNKNOWN


def test_one_that_does_not_answer_is_unknown_unless_something_worse_is_known() -> None:
    told = Told()
    assert told(0, unresponsive=FAILED).level is Level.UNKNOWN
    assert told(0, "inventory", wedged=FAILED).level is Level.FAILED


def test_what_is_wrong_with_a_card_is_wrong_with_its_vfs_and_not_the_other_way_round() -> None:
    told = Told()
    told(0, pcie=FAILED)
    told(0, bdf=VF, memory=DEGRADED)
    verdict = told.after(0, VF)
    assert [(each.condition, each.of) for each in verdict.ailments] == [("pcie", GPU), ("memory", None)]
    assert [each.condition for each in told.after(0).ailments] == ["pcie"]


def test_a_vf_keeps_its_own_word_where_it_is_as_bad() -> None:
    told = Told()
    told(0, pcie=DEGRADED)
    told(0, bdf=VF, pcie=DEGRADED)
    assert [each.of for each in told.after(0, VF).ailments] == [None]
    told(0, pcie=FAILED)
    assert [(each.severity, each.of) for each in told.after(0, VF).ailments] == [(FAILED, GPU), (DEGRADED, None)]


def test_what_the_settings_ignore_is_nothing() -> None:
    told = Told(msgspec.structs.replace(TERMS, ignore=frozenset({"link"})))
    told(0, link=DEGRADED)
    assert told.after(60) == Verdict(Level.OK)
    told.terms = TERMS
    assert told.after(0).level is Level.DEGRADED, "and something again when they do not any more"


def test_another_card_in_the_slot_begins_anew() -> None:
    told = Told()
    told(0, wedged=FAILED)
    told.book.forget(GPU)
    assert told(1, wedged=FINE).level is Level.OK


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 0.0, 3600.0])
def test_a_clock_that_jumps_holds_nothing_for_ever(jump: float) -> None:
    told = Told()
    told(0, pcie=FAILED)
    told(1, pcie=FINE)
    told.now += jump
    assert told.after(0).level is (Level.FAILED if jump < 3600 else Level.OK)
    assert told.after(60).level is Level.OK


def test_a_later_life_goes_on_with_the_quiet_period_and_the_flaps() -> None:
    told = Told()
    for _ in range(3):
        told(0, pcie=FAILED)
        told(0, pcie=FINE)
        told.after(told.due())
    told(0, pcie=FAILED)
    stored = msgspec.json.encode(told.book.dump())
    told.book = Book()
    cases = msgspec.json.decode(stored, type=dict[Bdf, dict[str, Case]])
    told.book.load({**cases, VF: {"of-a-newer-version": cases[GPU]["pcie"]}}, T)
    told(5, pcie=FINE)
    assert told.due() == 480
    assert told.after(479).level is Level.FAILED and told.after(1).level is Level.OK
    assert told.after(0, VF).ailments == ()


def said(told: Told, text: str, severity: Severity, key: str = "memory") -> list[tuple[Severity, str]]:
    """What the verdict says after this was said."""
    told.book.tell(told.now, "sysfs", GPU, {key: Fact(key, severity, text)}, told.terms)
    return [(ailment.severity, ailment.text) for ailment in told.after(0).ailments]


def test_the_words_are_those_of_what_is_held_and_do_not_follow_figures() -> None:
    told = Told()
    assert said(told, "one row", DEGRADED) == [(DEGRADED, "one row")]
    assert said(told, "two rows", DEGRADED) == [(DEGRADED, "one row")]
    assert said(told, "all rows", FAILED) == [(FAILED, "all rows")]
    assert said(told, "three rows", DEGRADED) == [(FAILED, "all rows")]
    told.after(60)
    assert said(told, "four rows", DEGRADED) == [(DEGRADED, "three rows")], "not those of what it has recovered from"
    said(told, "", FINE)
    assert said(told, "another row", DEGRADED) == [(DEGRADED, "another row")], "it came back for another reason"


def test_what_is_only_suspected_has_no_say_yet() -> None:
    told = Told()
    said(told, "99 °C", DEGRADED, "temperature")
    told.after(10)
    assert said(told, "120 °C", FAILED, "temperature") == [(DEGRADED, "99 °C")]


def test_long_words_are_cut() -> None:
    assert said(Told(), "x" * 10_000, FAILED) == [(FAILED, "x" * TEXT_CHARACTERS)]


def test_nothing_is_due_of_what_is_ignored() -> None:
    told = Told(msgspec.structs.replace(TERMS, ignore=frozenset({"temperature", "pcie"})))
    told(0, temperature=FAILED, pcie=FAILED)
    told(0, temperature=FAILED, pcie=FINE)
    assert told.due() == math.inf


@pytest.mark.parametrize("key", CONDITIONS)
def test_every_condition_counts_when_the_table_says(key: str) -> None:
    told = Told()
    said(told, "bad", FAILED, key)
    held = [[ailment.condition for ailment in told.after(wait).ailments] for wait in (0, 10)]
    assert held == [[key] if CONDITIONS[key].at_once else [], [key]]


def test_the_time_between_two_lives_is_no_part_of_a_hold_down() -> None:
    told = Told()
    told(0, temperature=FAILED)
    stored = msgspec.json.encode(told.book.dump())
    told.book, told.now = Book(), T + 5000
    told.book.load(msgspec.json.decode(stored, type=dict[Bdf, dict[str, Case]]), told.now)
    assert told(0, temperature=FAILED).ailments == ()
    assert [told.after(9).ailments, len(told.after(1).ailments)] == [(), 1]


def test_nothing_grows_with_time() -> None:
    told = Told()
    for _ in range(1000):
        told(99, temperature=FAILED, memory=FAILED)
        told(1, temperature=FINE, memory=FINE)
    told.after(2 * 3600)
    told.after(3600)
    assert list(told.book.dump()[GPU]) == []


# --- any history ------------------------------------------------------------------------------------------------------------------------

KEYS = ("wedged", "temperature", "memory", "link")
STEPS = st.lists(
    st.tuples(
        st.floats(0, 5000, allow_nan=False),
        st.sampled_from(("sysfs", "xpumd", "inventory")),
        st.none() | st.dictionaries(st.sampled_from(KEYS), st.sampled_from(Severity)),
        st.booleans(),
    ),
    max_size=40,
)


@given(STEPS)
def test_nothing_is_held_without_a_reason_nor_longer_than_the_most_and_due_never_lies(steps: list[object]) -> None:
    book, now = Book(), T
    said: dict[str, dict[str, Severity]] = {}
    last_bad: dict[str, float] = {}

    def worst(key: str) -> Severity:
        return max((facts.get(key, FINE) for facts in said.values()), default=FINE)

    def check() -> Verdict:
        verdict = book.look(now, {GPU: None}, TERMS)[GPU]
        for ailment in verdict.ailments:
            since_bad = now - last_bad[ailment.condition]
            assert since_bad <= TERMS.quiet_most, "held in its quiet period at most"
            assert ailment.healing is (worst(ailment.condition) < ailment.severity)
        for key in KEYS:
            if CONDITIONS[key].at_once and worst(key) is FAILED:
                assert verdict.level is Level.FAILED
        return verdict

    for wait, source, facts, restarted in steps:  # type: ignore[misc]
        until = now + wait
        while (due := book.due(TERMS)) <= until:
            before, now = check(), max(now, due)
            for key in KEYS:
                if worst(key) is not FINE:
                    last_bad[key] = now
            after = check()
            assert after != before or book.due(TERMS) > now, "something comes to pass when it is due"
        quiet = check()
        now = max(now, until)
        for key in KEYS:
            if worst(key) is not FINE:
                last_bad[key] = now
        assert check() == quiet, "and nothing in between"
        if restarted:
            stored = msgspec.json.decode(msgspec.json.encode(book.dump()), type=dict[Bdf, dict[str, Case]])
            book = Book()
            book.load(stored, now)
            for each, held in said.items():
                book.tell(now, each, GPU, {key: Fact(key, severity) for key, severity in held.items()}, TERMS)
        if facts is None:
            said.pop(source, None)
            book.tell(now, source, GPU, None, TERMS)
        else:
            said[source] = facts
            book.tell(now, source, GPU, {key: Fact(key, severity) for key, severity in facts.items()}, TERMS)
        for key in KEYS:
            if worst(key) is not FINE:
                last_bad[key] = now
        check()
    for source in list(said):
        said[source] = {}
        book.tell(now, source, GPU, {}, TERMS)
    now += TERMS.quiet_most
    assert check().ailments == ()


LOOK = 60.0
"""Seconds between looks without need, as the monitor has them."""
CLOCKED = st.lists(
    st.tuples(
        st.integers(0, 700),
        st.sampled_from((0.0, 0.0, 0.0, -5.0, -1000.0, -1e7, 1e7)),  # what somebody does to the clock
        st.sampled_from((GPU, VF)),
        st.sampled_from(("sysfs", "xpumd")),
        st.none() | st.dictionaries(st.sampled_from(("wedged", "temperature", "unresponsive")), st.sampled_from(Severity)),
    ),
    max_size=12,
)


@given(CLOCKED)
def test_whatever_a_clock_does_all_heals_in_time_and_a_vf_is_never_better_than_its_card(
    steps: list[tuple[int, float, Bdf, str, dict[str, Severity] | None]],
) -> None:
    terms, book, passed, ahead = Terms(hold_down=10, quiet=60, quiet_most=600), Book(), 0.0, T
    spoken: dict[tuple[str, Bdf], dict[str, Severity]] = {}
    last_bad: dict[str, float] = {}

    def look() -> dict[Bdf, Verdict]:
        bad = {key for (_, bdf), facts in spoken.items() if bdf == GPU for key, severity in facts.items() if severity}
        last_bad.update(dict.fromkeys(bad, passed))
        found = book.look(passed + ahead, {GPU: None, VF: GPU}, terms)
        for ailment in found[GPU].ailments:
            assert passed - last_bad[ailment.condition] <= terms.quiet_most + LOOK
        assert found[GPU].level is not Level.OK or not bad - {"temperature"}
        assert found[VF].level is Level.FAILED or found[GPU].level is not Level.FAILED
        assert found[VF].level is not Level.OK or not found[GPU].ailments
        return found

    def live(until: float) -> None:
        nonlocal passed
        look()
        while (wait := min(max(book.due(terms) - passed - ahead, 0.0), LOOK)) + passed <= until:
            passed += wait
            look()
            assert book.due(terms) > passed + ahead, "or it would be looked at without end"
        passed = until
        look()

    for wait, jump, bdf, source, severities in steps:
        live(passed + wait)
        ahead += jump
        spoken[source, bdf] = severities or {}
        facts = None if severities is None else {key: Fact(key, severity) for key, severity in severities.items()}
        book.tell(passed + ahead, source, bdf, facts, terms)
    live(passed)
    for source, bdf in spoken:
        spoken[source, bdf] = {}
        book.tell(passed + ahead, source, bdf, {}, terms)
    live(passed + terms.quiet_most + LOOK)
    assert not any(verdict.ailments for verdict in look().values())
