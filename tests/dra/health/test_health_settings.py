"""What may stand in the `health` part of a settings file."""

from __future__ import annotations

import msgspec
import pytest

from dra import settings, settings_plan
from dra.health import health_settings
from dra.health.health_settings import Health, Telemetry
from dra.settings import NodePluginConfiguration, SettingsInvalid
from dra.settings_plan import Verdict

HEAD = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "NodePluginConfiguration"}


def decode(**health: object) -> Health:
    return settings.decode_node({**HEAD, "health": health}, "s.yaml").health


def test_nothing_said_is_watching_without_recovering() -> None:
    assert decode() == Health()
    assert (Health().enabled, Health().recovery.mode, Health().effects.failed, Health().effects.degraded) == (
        True,
        "off",
        "NoExecute",
        "none",
    )


def test_terms_of_the_verdict() -> None:
    terms = health_settings.terms(decode(holdDown="3s", quiet="1m30s", quietMost="2h", ignore=["link", "power"]))
    assert (terms.hold_down, terms.quiet, terms.quiet_most, terms.ignore) == (3, 90, 7200, {"link", "power"})
    assert health_settings.terms(decode(quiet="2h", quietMost="1h")).quiet_most == 7200, "never shorter than the first"


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ({"ignore": ["temprature"]}, "'temprature' is no condition; did you mean temperature? - at `$.health.ignore[0]`"),
        ({"ignore": ["zzz"]}, "known are absent, "),
        ({"period": "500ms"}, "500ms is out of range, 1s to 300s are allowed - at `$.health.period`"),
        ({"effects": {"failed": "NoExcute"}}, "allowed are none, NoSchedule, NoExecute"),
        ({"limits": {"temperatureDegraded": 110, "temperatureFailed": 100}}, "temperatureDegraded is above temperatureFailed"),
        ({"limits": {"temperatureDegraded": 300}}, "$.health.limits.temperatureDegraded"),
        ({"xpumd": {"socket": "xpumd.sock"}}, "an absolute path"),
        ({"xpumd": {"socket": "/" + "x" * 107}}, "at most 107 bytes"),
        ({"xpumd": {"socket": "/x\0y"}}, "an absolute path"),
        ({"xpumd": {"socket": "/" + "\ud800" * 107}}, "at most 107 bytes"),
        ({"recovery": {"mode": "reboot"}}, "$.health.recovery.mode"),
        ({"recovery": {"perDay": 0}}, "$.health.recovery.perDay"),
        ({"helth": 1}, "helth"),
    ],
)
def test_what_is_refused_is_named_with_its_place(health: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        decode(**health)
    assert said in str(refused.value), refused.value


def test_every_change_is_applied_at_once_but_of_labels() -> None:
    everything = decode(
        enabled=False,
        period="10s",
        holdDown="0s",
        quiet="1s",
        quietMost="1m",
        effects={"degraded": "NoSchedule", "failed": "none", "unknown": "NoExecute"},
        ignore=["link"],
        limits={"temperatureDegraded": 90, "temperatureFailed": 100, "powerDegraded": 100},
        xpumd={"socket": "/s", "minSeverity": "failed"},
        recovery={"mode": "rebind", "perDay": 2},
        telemetry={"enabled": False, "claimLabels": False},
    )
    made = settings_plan.plan(NodePluginConfiguration(), NodePluginConfiguration(health=everything), in_use={}, gpus=())
    assert {entry.field for entry in made.entries if entry.verdict is not Verdict.APPLY} == {"health.telemetry.claimLabels"}
    later = msgspec.structs.replace(everything, telemetry=Telemetry(enabled=False))
    assert len(made.entries) == 18 and made.effective.health == later
