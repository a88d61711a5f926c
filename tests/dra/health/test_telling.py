"""A verdict in the words of those who are told."""

from __future__ import annotations

import msgspec
import pytest

from dra import slice_limits
from dra.devices import Gpu, Kind
from dra.health import telling
from dra.health.facts import Severity
from dra.health.telling import Effects, Opinion
from dra.health.told import DeviceHealth, Level
from dra.health.verdict import Ailment, Verdict
from dra.names import Bdf, DeviceName
from dra.pool import Device, Effect, Taint

HOT = Ailment(condition="temperature", severity=Severity.DEGRADED, text="GPU 99 °C, limit 95 °C", since=0.0)
DEAD = Ailment(condition="wedged", severity=Severity.FAILED, text="rebind", since=3600.0, healing=True, of=Bdf("0000:18:00.0"))
SILENT = Ailment(condition="unresponsive", severity=Severity.FAILED, text="no answer for 2 s", since=0.0)


def test_effects_are_as_set_by_severity() -> None:
    verdict = Verdict(Level.FAILED, (DEAD, HOT, SILENT))
    assert telling.taints(verdict, Effects()) == (Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE, "failed"),)
    every = Effects(degraded="NoSchedule", failed="NoSchedule", unknown="NoExecute")
    assert telling.taints(verdict, every) == (
        Taint("gpu.intel.com/unresponsive", Effect.NO_EXECUTE, "failed"),
        Taint("gpu.intel.com/wedged", Effect.NO_SCHEDULE, "failed"),
        Taint("gpu.intel.com/temperature", Effect.NO_SCHEDULE, "degraded"),
    )
    assert telling.taints(verdict, Effects(failed="none")) == ()


def test_nobody_who_tolerates_what_failed_is_evicted_for_its_getting_better() -> None:
    ill = msgspec.structs.replace(DEAD, healing=False)
    assert telling.taints(Verdict(Level.FAILED, (ill,)), Effects()) == telling.taints(Verdict(Level.FAILED, (DEAD,)), Effects())


def test_the_gravest_taints_are_chosen_and_the_server_takes_them() -> None:
    keys = (("wedged", Severity.FAILED), ("pcie", Severity.FAILED), *((key, Severity.DEGRADED) for key in ("link", "power", "errors")))
    ailments = tuple(Ailment(condition=key, severity=severity, text="", since=0.0) for key, severity in keys)

    def chosen(effects: Effects) -> list[str]:
        taints = telling.taints(Verdict(Level.FAILED, ailments), effects)
        checked, dropped = slice_limits.check(Device(name=DeviceName("gpu"), taints=taints))
        assert checked is not None and set(checked.taints) == set(taints) and dropped == ()
        return [taint.key.partition("/")[2] for taint in taints]

    assert chosen(Effects(degraded="NoExecute")) == ["wedged", "pcie", "link", "power"]
    assert chosen(Effects(degraded="NoExecute", failed="NoSchedule")) == ["link", "power", "errors", "wedged"]


def test_people_are_told_what_since_when_and_of_whom() -> None:
    assert telling.message(Verdict(Level.FAILED, (DEAD, HOT))) == (
        "wedged of its card 0000:18:00.0: rebind (since 1970-01-01T01:00:00Z, over now and watched for a while); "
        "temperature: GPU 99 °C, limit 95 °C (since 1970-01-01T00:00:00Z)"
    )
    assert telling.message(Verdict(Level.OK)) == ""


def test_a_message_is_cut_between_characters() -> None:
    for more in range(4):
        long = Ailment(condition="memory", severity=Severity.FAILED, text="x" * more + "°" * 2000, since=0.0)
        message = telling.message(Verdict(Level.FAILED, (long,)))
        assert telling.MESSAGE_BYTES - 2 < len(message.encode()) <= telling.MESSAGE_BYTES and message.endswith("°")


def test_what_is_no_text_does_not_end_the_program() -> None:
    odd = Ailment(condition="memory", severity=Severity.FAILED, text="\ud800", since=0.0)
    assert telling.message(Verdict(Level.FAILED, (odd,))).startswith("memory: ? (since")


@pytest.mark.parametrize(("level", "healthy"), [(Level.OK, True), (Level.DEGRADED, True), (Level.FAILED, False), (Level.UNKNOWN, None)])
def test_selectors_see_whether_it_works(level: Level, healthy: bool | None) -> None:
    assert telling.healthy(Verdict(level)) is healthy


def test_devices_are_told_of_with_the_time_since_it_is_so() -> None:
    card = Gpu(bdf=Bdf("0000:18:00.0"), device="0xe211")
    vf = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=card.bdf, vf_index=1)
    other = Gpu(bdf=Bdf("0000:19:00.0"), device="0xe211")
    first = telling.told(Opinion({card.bdf: Verdict(Level.OK)}), (card, vf, other), {}, 100.0)
    assert first == {card.name: DeviceHealth(Level.OK, "", 100.0), vf.name: DeviceHealth(Level.OK, "", 100.0)}, "of the third nobody knows"
    hot = Verdict(Level.DEGRADED, (HOT,))
    second = telling.told(Opinion({card.bdf: hot, vf.bdf: Verdict(Level.OK)}), (card, vf), first, 200.0)
    assert (second[card.name].level, second[card.name].since, second[vf.name].since) == (Level.DEGRADED, 200.0, 100.0)
    assert "99 °C" in second[card.name].text
