from __future__ import annotations

from typing import Any

import pytest

from dra import controller_settings, settings_plan
from dra.classic.placement import Policy
from dra.controller_settings import ControllerConfiguration
from dra.settings import SettingsInvalid

HEAD = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "ControllerConfiguration"}


def decoded(**fields: Any) -> ControllerConfiguration:
    return controller_settings.decode_controller(HEAD | fields, "c.yaml")


def test_without_a_word_the_defaults_hold() -> None:
    assert decoded() == ControllerConfiguration()
    assert controller_settings.policy_of(decoded()) == Policy()


def test_the_policy_is_what_the_file_says() -> None:
    made = controller_settings.policy_of(decoded(allocation={"policy": "packed", "resource": "millicores", "vfMemory": {"0x56c0": 4096}}))
    assert made == Policy("packed", "millicores", {"0x56c0": 4096})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "NodePluginConfiguration"}, "want gpu.intel.com/v1alpha1 ControllerConfiguration"),
        ({"allocation": {"policy": "spread"}}, "allowed are none, balanced, packed"),
        ({"alocation": {}}, "did you mean `allocation`?"),
        ({"allocation": {"vfMemory": {"flex170": 4096}}}, "'flex170' is not a PCI id such as 0x56c0"),
        ({"workers": 0}, "workers"),
        ({"probes": {"address": "everywhere"}}, "not an IP address"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        decoded(**fields)
    assert said in str(refused.value) and str(refused.value).startswith("c.yaml: ")


def test_a_plan_says_what_waits_for_a_restart() -> None:
    made = controller_settings.plan(decoded(), decoded(workers=2, allocation={"policy": "packed"}))
    assert settings_plan.render(made) == [
        'apply allocation.policy: "none" -> "packed"',
        "restart workers: 8 -> 2 (the workers are started once, at start)",
    ]
    assert made.effective.allocation.policy == "packed" and made.effective.workers == 8
