"""What is made of the daemon's messages, whose bytes come from a table of field numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra.health import xpumd
from dra.health.conditions import CONDITIONS
from dra.health.facts import Fact, Facts, Severity
from dra.health.xpumd import Heard, Least
from dra.names import Bdf
from tests.fakes import xpumd_server
from tests.fakes.xpumd_server import CRITICAL, FAILED, OK, UNKNOWN, WARNING, Health, device, response

GPU, OTHER = Bdf("0000:3a:00.0"), Bdf("0000:9a:00.0")


def heard(*devices: bytes, known: tuple[Bdf, ...] = (GPU, OTHER), least: Least = "warning") -> Heard:
    return xpumd.heard(xpumd.decode(response(*devices)), known=known, least=least)


def facts(health: Health, least: Least = "warning") -> Facts:
    return heard(device(GPU, health), least=least).facts.get(GPU, {})


def severities(health: Health, least: Least = "warning") -> dict[str, Severity]:
    return {key: fact.severity for key, fact in facts(health, least).items()}


def test_the_method_and_the_request_are_the_daemons() -> None:
    assert (xpumd.METHOD, xpumd.REQUEST) == (xpumd_server.METHOD, b"")


def test_every_field_is_where_the_daemon_puts_it() -> None:
    (said,) = xpumd.decode(response(device(GPU, {"memory": (WARNING, "Word", "text")}, size=(1 << 40) + 1))).devices
    assert (said.info.uuid, said.info.model) == (f"uuid-of-{GPU}", "Intel Arc Pro")
    assert (said.info.pci.bdf, said.info.pci.device_id, said.info.pci.vendor_id) == (GPU, "0xe211", "0x8086")
    assert [(each.name, each.version, each.subdevice_id) for each in said.info.firmwares] == [("GSC", "1.2.3", "0")]
    assert [(each.type, each.subdevice_id, each.size) for each in said.info.memory] == [("gddr6", "0", (1 << 40) + 1)]
    assert [(each.name, each.severity, each.reason, each.message) for each in said.health] == [("memory", 2, "Word", "text")]


def test_the_first_part_of_a_name_chooses_the_condition() -> None:
    said = severities({"memory": OK, "temperature.core.gpu": WARNING, "Power.board": FAILED, "fan.1": WARNING, "": OK, "memoryx": OK})
    assert said == {"memory": Severity.FINE, "temperature": Severity.DEGRADED, "power": Severity.FAILED, "other": Severity.DEGRADED}
    assert all("xpumd" in CONDITIONS[key].sources for key in said)


@pytest.mark.parametrize(
    ("severity", "found"), [(OK, Severity.FINE), (WARNING, Severity.DEGRADED), (CRITICAL, Severity.FAILED), (FAILED, Severity.FAILED)]
)
def test_severities_are_ours(severity: int, found: Severity) -> None:
    assert severities({"memory": severity}) == {"memory": found}


@pytest.mark.parametrize("severity", [UNKNOWN, 5, 1000])
def test_what_is_not_known_is_not_said(severity: int) -> None:
    assert facts({"memory": severity}) == {}
    assert heard(device(GPU, {"memory": severity})).facts == {}, "not even that there is nothing against it"
    assert severities({"memory.a": severity, "memory.b": OK}) == {"memory": Severity.FINE}


def test_a_device_without_any_health_is_not_spoken_of() -> None:
    assert heard(device(GPU, {}), device(OTHER, {"memory": OK})).facts.keys() == {OTHER}


@pytest.mark.parametrize(("least", "bad"), [("warning", {2, 3, 4}), ("critical", {3, 4}), ("failed", {4})])
def test_what_is_below_the_least_severity_is_fine(least: Least, bad: set[int]) -> None:
    for severity in (OK, WARNING, CRITICAL, FAILED):
        assert (severities({"power": severity}, least)["power"] is not Severity.FINE) is (severity in bad)


def test_the_worst_of_several_counts_and_each_bad_one_is_told_the_worst_first() -> None:
    said = {
        "temperature.memory.memory": (WARNING, "HighTemperature", ""),
        "temperature.core.gpu": (CRITICAL, "CriticalTemperature", "thermal throttling"),
        "temperature.global": (OK, "ok", ""),
    }
    assert facts(said)["temperature"] == Fact(
        "temperature",
        Severity.FAILED,
        "temperature.core.gpu: critical, CriticalTemperature (thermal throttling); temperature.memory.memory: warning, HighTemperature",
    )
    assert facts(said, "critical")["temperature"].text == "temperature.core.gpu: critical, CriticalTemperature (thermal throttling)"


def test_one_name_may_come_several_times_and_a_device_too() -> None:
    found = heard(device(GPU, {"memory": OK}), device(GPU, {"memory": (WARNING, "a", "")}), device(GPU, {"memory": (FAILED, "b", "")}))
    assert found.facts == {GPU: {"memory": Fact("memory", Severity.FAILED, "memory: failed, b; memory: warning, a")}}


def test_a_text_is_bounded_and_says_how_much_is_left_out() -> None:
    text = facts({f"fan.{number:02}": (WARNING, "Stopped", "x" * 1000) for number in range(20)})["other"].text
    assert len(text) <= xpumd.TEXT_LENGTH
    assert text.startswith("fan.00: warning, Stopped (xxx") and text.endswith("more")


def test_foreign_text_is_one_line() -> None:
    assert facts({"fan": (WARNING, "", "a\n\tb\x1b[31m  c")})["other"].text == "fan: warning, a b [31m c"


@pytest.mark.parametrize("spelled", ["0000:3a:00.0", "0000:3A:00.0", "3a:00.0", " 3A:00.0\n", "00000000:3a:00.0", "0:3a:00.0"])
def test_addresses_are_known_however_they_are_spelled(spelled: str) -> None:
    assert heard(device(spelled, {"memory": OK})).facts.keys() == {GPU}


def test_a_domain_above_ffff_keeps_its_digits() -> None:
    assert xpumd.address("10000:3A:00.0") == "10000:3a:00.0"


@pytest.mark.parametrize("vendor", ["0x8086", "8086", "0X8086", ""])
def test_intels_devices_count_and_those_that_do_not_say(vendor: str) -> None:
    assert heard(device(GPU, {"memory": OK}, vendor=vendor)).passed_over == ()


@pytest.mark.parametrize(
    ("bdf", "vendor", "sentence"),
    [
        ("0000:99:00.0", "0x8086", "0000:99:00.0 is none of this node's GPUs"),
        (GPU, "0x10de", f"{GPU} is of vendor '0x10de', not Intel's"),
        ("", "0x8086", "'' is no PCI address"),
        ("banana", "0x8086", "'banana' is no PCI address"),
        ("0000:3a:00.8", "0x8086", "'0000:3a:00.8' is no PCI address"),
        ("0000:3a:00.0\x00", "0x8086", "'0000:3a:00.0' is no PCI address"),
        ("x" * 500, "0x8086", f"'{'x' * 39}…' is no PCI address"),
    ],
)
def test_devices_that_are_not_ours_are_passed_over_with_a_word(bdf: str, vendor: str, sentence: str) -> None:
    assert heard(device(bdf, {"memory": FAILED}, vendor=vendor), device(OTHER, {"memory": OK})) == Heard(
        {OTHER: {"memory": Fact("memory", Severity.FINE)}}, (sentence,)
    )


def test_a_message_with_fields_of_a_later_version_is_understood() -> None:
    assert xpumd.decode(response(device(GPU, {}) + b"\xfa\x01\x03new") + b"\xfa\x01\x03new").devices[0].info.pci.bdf == GPU


def test_bytes_that_are_no_message_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="no DeviceHealthResponse"):
        xpumd.decode(b"\xff\xff\xff")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    try:
        found = xpumd.decode(data)
    except ValueError:
        return
    xpumd.heard(found, known=(GPU,), least="warning")


statuses = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.tuples(st.integers(0, 6), st.text(max_size=300), st.text(max_size=300)),
    max_size=25,
)


@given(statuses, st.sampled_from(("warning", "critical", "failed")))
def test_facts_are_of_known_conditions_and_bounded(said: Health, least: Least) -> None:
    for key, fact in facts(said, least).items():
        assert key == fact.condition in CONDITIONS
        assert bool(fact.text) is (fact.severity is not Severity.FINE)
        assert len(fact.text) <= xpumd.TEXT_LENGTH and fact.text.isprintable()
