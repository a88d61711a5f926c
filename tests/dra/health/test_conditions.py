"""The table of conditions keeps what others rely on."""

from __future__ import annotations

import re

from dra.devices import State
from dra.health.conditions import CONDITIONS
from dra.health.verdict import UNRESPONSIVE
from dra.names import DRIVER_NAME
from dra.offer import ABSENT, TAINTS


def test_every_key_can_be_that_of_a_taint_however_many_there_are() -> None:
    for key in CONDITIONS:
        assert re.fullmatch(r"[a-z]([a-z-]{0,61}[a-z])?", key), "a label's name, 63 characters at most"
        assert len(f"{DRIVER_NAME}/{key}") <= 253 + 1 + 63


def test_what_keeps_a_gpu_from_being_used_is_a_condition_of_the_same_name() -> None:
    assert {*TAINTS.values(), ABSENT, UNRESPONSIVE} - {"passthrough"} <= CONDITIONS.keys(), "one in a virtual machine is not ill"
    assert State.WEDGED in TAINTS


def test_every_condition_says_who_tells_it_and_what_to_do() -> None:
    for condition in CONDITIONS.values():
        assert condition.meaning.endswith(".") and condition.cure.endswith(".")
        assert set(condition.sources) <= {"inventory", "uevents", "sysfs", "xpumd"} and condition.sources
