"""What readings mean: the figures at which a condition begins, and at which it ends."""

from __future__ import annotations

from typing import Any

import pytest

from dra.health import rates, thresholds
from dra.health.conditions import CONDITIONS
from dra.health.facts import Fact, Facts, Severity
from dra.health.gts import Gt
from dra.health.limits import Limits
from dra.health.monitors import Meter, Sensor
from dra.health.readings import Aer, Reading
from dra.pcie_slot import Link

FINE, DEGRADED, FAILED = Severity.FINE, Severity.DEGRADED, Severity.FAILED
NOTHING = Limits()


def facts(
    now: Reading, before: Reading | None = None, device: str = "0xe211", previous: Facts | None = None, limits: Limits = NOTHING
) -> Facts:
    return thresholds.facts(before, now, device=device, previous=previous or {}, limits=limits)


def read(at: float = 10.0, **fields: Any) -> Reading:
    return Reading(at=at, **fields)


def severities(found: Facts) -> dict[str, Severity]:
    return {condition: fact.severity for condition, fact in found.items()}


def test_what_cannot_be_read_is_not_mentioned() -> None:
    assert facts(read()) == {}


def test_every_condition_told_of_is_one_that_sysfs_tells() -> None:
    found = facts(
        read(
            off_bus=False, aer={"p": Aer(0, 0, 0)}, link=Link(8, 8, "", ""), sensors=(Sensor("pkg", 40),), memory_health="OK",
            gpu_health="ok", meters=(Meter("card", watts=9),), gts=(Gt("gt0", throttled={"thermal": False}),),
        )
    )  # fmt: skip
    assert set(severities(found).values()) == {FINE} and all(fact.text == "" for fact in found.values())
    told = {key for key, condition in CONDITIONS.items() if "sysfs" in condition.sources}
    assert set(found) == told - {"unresponsive"}, "that one is no file's"


def test_off_the_bus_says_all_there_is() -> None:
    assert severities(facts(read(off_bus=True))) == {"off-bus": FAILED}


# --- temperature ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "sensor", "expected"),
    [
        # what the driver says comes first
        ("0xe211", Sensor("pkg", 99.9, 100, 110), FINE),
        ("0xe211", Sensor("pkg", 100, 100, 110), DEGRADED),
        ("0xe211", Sensor("pkg", 110, 100, 110), FAILED),
        ("0xe211", Sensor("vram", 104, None, 105), FINE),
        ("0xe211", Sensor("vram", 105, None, 105), FAILED),
        ("0x56c1", Sensor("pkg", 96, 98, 110), FINE),
        # else the model's
        ("0x56c0", Sensor("pkg", 100), DEGRADED),
        ("0x56c1", Sensor("pkg", 94.9), FINE),
        ("0x56c1", Sensor("pkg", 95), DEGRADED),
        ("0x56c1", Sensor("pkg", 125), FAILED),
        ("0x0bd5", Sensor("pkg", 104.9), FINE),
        ("0x0bd5", Sensor("pkg", 105), DEGRADED),
        ("0x0bd5", Sensor("pkg", 130), FAILED),
        ("0x56c0", Sensor("vram", 104), FINE),
        ("0x56c0", Sensor("vram_ch_3", 105), FAILED),
        ("0x0bd5", Sensor("vram", 100), FAILED),
        # a sensor that nobody gives a limit
        ("0xe211", Sensor("pcie", 150), FINE),
    ],
)
def test_temperatures(device: str, sensor: Sensor, expected: Severity) -> None:
    found = facts(read(sensors=(sensor,)), device=device)["temperature"]
    assert found.severity is expected
    assert (sensor.label in found.text) == (expected is not FINE)


def test_the_worst_sensor_counts() -> None:
    found = facts(read(sensors=(Sensor("pkg", 101, 100, 110), Sensor("vram", 106, None, 105), Sensor("pcie", 30))))
    assert found["temperature"] == Fact("temperature", FAILED, "vram at 106 °C, limit 105 °C")


def test_a_card_at_its_limit_is_told_of_once_until_it_is_5_degrees_cooler() -> None:
    told, before = [], {}
    for celsius in (99, 101, 99, 96, 95.5, 94.9, 99, 111, 106, 104, 94):
        before = facts(read(sensors=(Sensor("pkg", celsius, 100, 110),)), previous=before)
        told.append(before["temperature"].severity)
    assert told == [FINE, DEGRADED, DEGRADED, DEGRADED, DEGRADED, FINE, FINE, FAILED, FAILED, DEGRADED, FINE]


def test_settings_come_before_all_else() -> None:
    limits = Limits(temperature_degraded_celsius=70, temperature_failed_celsius=80)
    seen = [facts(read(sensors=(Sensor("pkg", at, 100, 110),)), limits=limits)["temperature"].severity for at in (69, 70, 80)]
    assert seen == [FINE, DEGRADED, FAILED]


# --- power ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "watts", "meter", "limits", "expected"),
    [
        ("0x56c1", 41, Meter("card"), NOTHING, FINE),  # 38 W and a tenth of it
        ("0x56c1", 42, Meter("card"), NOTHING, DEGRADED),
        ("0x0bd5", 659, Meter("card"), NOTHING, FINE),
        ("0x0bda", 331, Meter("card"), NOTHING, DEGRADED),
        ("0xffff", 329, Meter("card"), NOTHING, FINE),
        ("0xffff", 331, Meter("card"), NOTHING, DEGRADED),
        ("0xe211", 219, Meter("card", rated_watts=200), NOTHING, FINE),
        ("0xe211", 221, Meter("card", rated_watts=200), NOTHING, DEGRADED),
        ("0xe211", 211, Meter("card", rated_watts=200, crit_watts=210), NOTHING, DEGRADED),
        ("0xe211", 181, Meter("card", rated_watts=200), Limits(power_watts=180), DEGRADED),
        ("0xe211", 400, Meter("card", rated_watts=200), Limits(power_watts=500), FINE),
        ("0xe211", 400, Meter("gt0", rated_watts=200), NOTHING, None),  # a tile is not the card
    ],
)
def test_power_over_an_interval(device: str, watts: float, meter: Meter, limits: Limits, expected: Severity | None) -> None:
    before, now = (
        read(at, meters=(Meter(meter.label, 1e6 + at * watts, None, meter.rated_watts, None, meter.crit_watts),)) for at in (5, 25)
    )
    found = facts(now, before, device, limits=limits).get("power")
    assert (found.severity if found else None) is expected


def test_power_is_not_known_from_one_reading_nor_from_two_too_close_nor_past_a_counter_that_began_anew() -> None:
    def at(when: float, joules: float) -> Reading:
        return read(when, meters=(Meter("card", joules),))

    assert "power" not in facts(at(10, 9e9))
    assert "power" not in facts(at(10.5, 9e9), at(10, 0))
    assert "power" not in facts(at(20, 5), at(10, 9e9))


# --- counters ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, Aer(7, 7, 7), FINE),  # before we looked
        (Aer(7, 7, 7), Aer(7, 7, 900), FINE),  # those were corrected
        (Aer(7, 7, 7), Aer(7, 8, 7), DEGRADED),
        (Aer(7, 7, 7), Aer(8, 9, 7), FAILED),
        (Aer(7, 7, 7), Aer(0, 0, 0), FINE),  # found anew
        (Aer(None, None, 1), Aer(5, 5, 1), FINE),  # could not be read then
    ],
)
def test_errors_on_the_link_are_told_of_by_the_reading_that_finds_more(before: Aer | None, now: Aer, expected: Severity) -> None:
    earlier = read(5, aer={"0000:16:00.0": before}) if before is not None else None
    found = facts(read(aer={"0000:16:00.0": now}), earlier)["pcie"]
    assert found.severity is expected
    assert ("at 0000:16:00.0" in found.text) == (expected is not FINE)


def test_a_port_that_was_not_there_before_brings_no_growth() -> None:
    assert facts(read(aer={"a": Aer(0, 0, 0), "b": Aer(90, 90, 0)}), read(5, aer={"a": Aer(0, 0, 0)}))["pcie"].severity is FINE


@pytest.mark.parametrize(
    ("counter", "expected"),
    [
        ("gt0/fatal_guc", FAILED),
        ("gt1/soc_fatal_psf_0", FAILED),
        ("gt0/sgunit_nonfatal", DEGRADED),
        ("gt0/gsc_correctable_sram_ecc", FINE),
        ("driver_object_migration", FINE),
    ],
)
def test_what_the_cards_counters_mean(counter: str, expected: Severity) -> None:
    found = facts(read(errors={counter: 3}), read(5, errors={counter: 1}))["errors"]
    assert found == Fact("errors", expected, "" if expected is FINE else f"{counter} grew by 2")
    assert facts(read(errors={counter: 1}), read(5, errors={counter: 3}))["errors"].severity is FINE, "its driver was bound again"


def test_many_counters_at_once_are_summed_up() -> None:
    before, now = ({f"gt0/fatal_{letter}": value for letter in "abcde"} | {"gt0/soc_nonfatal_x": value} for value in (0, 1))
    text = facts(read(errors=now), read(5, errors=before))["errors"].text
    assert text == "gt0/fatal_a grew by 1, gt0/fatal_b grew by 1, gt0/fatal_c grew by 1 and 2 more"


# --- words, link, throttling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "fields", "expected"),
    [
        ("errors", {"gpu_health": "ok"}, FINE),
        ("errors", {"gpu_health": "warning"}, DEGRADED),
        ("errors", {"gpu_health": "critical", "errors": {"gt0/fatal_guc": 0}}, FAILED),
        ("errors", {"gpu_health": "dunno"}, None),
        ("memory", {"memory_health": "OK"}, FINE),
        ("memory", {"memory_health": "MEMORY_HEALTH_ALARM"}, DEGRADED),
        ("memory", {"memory_health": "EC_PENDING"}, DEGRADED),
        ("memory", {"memory_health": "DEGRADED"}, FAILED),
        ("memory", {"memory_health": "MEMORY_HEALTH_UNKNOWN"}, None),
        ("link", {"link": Link(8, 8, "2.5 GT/s", "32.0 GT/s")}, FINE),  # slow to save power
        ("link", {"link": Link(4, 8, "32.0 GT/s", "32.0 GT/s")}, DEGRADED),
        ("link", {"link": Link(4, None, "32.0 GT/s", None)}, None),
        ("throttled", {"gts": (Gt("gt0", throttled={"pl1": True, "pl2": True, "pl4": True, "vr_tdc": True}),)}, FINE),
        ("throttled", {"gts": (Gt("gt0", throttled={"thermal": False}), Gt("gt1", throttled={"thermal": True}))}, DEGRADED),
        ("throttled", {"gts": (Gt("gt0", throttled={"prochot": True}),)}, DEGRADED),
        ("throttled", {"gts": (Gt("gt0", throttled={"ratl": True}),)}, DEGRADED),
        ("throttled", {"gts": (Gt("gt0", throttled={"soc_avg_thermal": True}),)}, DEGRADED),
        ("throttled", {"gts": (Gt("gt0"),)}, None),
    ],
)
def test_words_link_and_throttling(condition: str, fields: dict[str, Any], expected: Severity | None) -> None:
    assert severities(facts(read(**fields))).get(condition) is expected


def test_how_busy_a_gt_was() -> None:
    def at(when: float, idle_ms: int | None) -> Reading:
        return read(when, gts=(Gt("gt0", idle_ms=idle_ms),))

    def busy(before: Reading | None, now: Reading) -> float | None:
        return rates.busy(before, now, now.gts[0])

    assert busy(at(0, 1000), at(10, 8500)) == pytest.approx(0.25)
    assert busy(at(0, 1000), at(10, 11400)) == 0.0, "the two clocks differ a little"
    assert busy(at(0, 1000), at(10, 1000)) == 1.0
    assert busy(None, at(10, 1000)) is None
    assert busy(at(0, 5000), at(10, 100)) is None, "its driver was bound again"
    assert busy(at(0, None), at(10, 100)) is None


def test_what_was_counted_while_a_card_slept_is_not_lost() -> None:
    before = read(errors={"gt0/fatal_guc": 5}, aer={"0000:18:00.0": Aer(fatal=1)})
    for gap in (read(20.0, asleep=True), read(20.0, off_bus=True)):
        now = read(30.0, errors={"gt0/fatal_guc": 9}, aer={"0000:18:00.0": Aer(fatal=2)})
        found = severities(facts(now, rates.carried(before, gap)))
        assert (found["errors"], found["pcie"]) == (FAILED, FAILED)
    assert rates.carried(before, read(20.0)) == read(20.0), "a reading that could be made is what it is"
