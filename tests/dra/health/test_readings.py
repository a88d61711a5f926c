"""What is read of each machine's GPUs, whatever shape its files are in."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import discovery
from dra.devices import Gpu, Kind
from dra.health import readings, telemetry, thresholds
from dra.health.limits import Limits
from dra.health.monitors import Meter, Sensor
from dra.health.readings import Aer, Reading
from dra.names import Bdf
from dra.pcie_slot import Link
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges.kernel_tree import RealKernelTree
from tests.fakes import machines

B60, MAX, A770 = ("server-4x-b60", "0000:18:00.0"), ("server-8x-max1550", "0000:18:00.0"), ("desktop-a770", "0000:03:00.0")


class Spoilt:
    """A machine some of whose files read differently."""

    def __init__(self, kernel: SimKernel, spoil: Callable[[str, str], str]) -> None:
        self._kernel, self._spoil = kernel, spoil
        self.asked: list[str] = []

    def read(self, path: str) -> str:
        self.asked.append(path)
        return self._spoil(path, self._kernel.read(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)


@functools.cache
def a_machine(name: str) -> SimKernel:
    """Shared: only looked at."""
    return machines.kernel(name)


@functools.cache
def gpus(name: str) -> dict[str, Gpu]:
    return {gpu.bdf: gpu for gpu in discovery.scan(a_machine(name)).gpus}


def reading(kernel: Any, name: str, bdf: str, at: float = 0.0) -> Reading:
    return readings.read(kernel, gpus(name)[bdf], at)


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Every figure of a reading by its place; members of lists are known by their label or name, and what is None is left out."""
    if isinstance(value, dict):
        return {place: leaf for key, below in value.items() for place, leaf in leaves(below, f"{where}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return leaves({below.get("label") or below.get("name"): below for below in value}, where)
    return {} if value is None else {where: value}


def test_a_battlemage_card_with_xe() -> None:
    seen = reading(a_machine(B60[0]), *B60)
    assert seen.off_bus is False
    assert seen.link == Link(8, 8, "32.0 GT/s", "32.0 GT/s"), "of the slot, not of the switch on the card"
    assert seen.sensors == (Sensor("pkg", 47.0, 100.0, 110.0), Sensor("vram", 52.0, None, 105.0))
    assert seen.meters[0] == Meter("card", energy_joules=123456.789012, rated_watts=200.0, max_watts=200.0, crit_watts=400.0)
    assert seen.fans_rpm == {"fan1": 1250, "fan2": 0}
    assert seen.memory_used_bytes == 33554432
    assert [(gt.name, gt.act_mhz, gt.cur_mhz, gt.max_mhz, gt.idle_ms) for gt in seen.gts] == [
        ("gt0", 0, 400, 2400, 987654),
        ("gt1", 0, 400, 1500, 987654),
    ]
    assert seen.gts[0].throttled["thermal"] is False and "status" not in seen.gts[0].throttled
    assert list(seen.aer) == ["0000:18:00.0", "0000:17:01.0", "0000:16:00.0", "0000:15:01.0"], "both sides of the slot"
    assert set(seen.aer.values()) == {Aer(0, 0, 0)}


def test_a_card_of_prelim_i915() -> None:
    seen = reading(a_machine(MAX[0]), *MAX)
    assert seen.memory_health == "OK"
    assert seen.memory_used_bytes == 137438953472 - 137405399040
    assert [meter.label for meter in seen.meters] == ["card", "gt0", "gt1"], "i915 has a monitor for each tile"
    assert seen.errors["gt1/fatal_guc"] == 0 and seen.errors["driver_object_migration"] == 0
    assert [gt.name for gt in seen.gts] == ["gt0", "gt1"]


def test_upstream_i915_has_no_temperature_and_one_gt() -> None:
    seen = reading(a_machine(A770[0]), *A770)
    assert (seen.sensors, [gt.name for gt in seen.gts], seen.fans_rpm) == ((), ["gt0"], {"fan1": 980})


def test_before_linux_5_18_the_card_itself_has_the_frequencies() -> None:
    kernel = machines.kernel(A770[0])

    def without_gts(path: str) -> list[str]:
        if path.endswith("/drm/card1/gt"):
            raise OSError(errno.ENOENT, "", path)
        return kernel.list(path)

    old = Spoilt(kernel, lambda _path, text: text)
    old.list = without_gts  # type: ignore[method-assign]
    (gt,) = reading(old, *A770).gts
    assert (gt.name, gt.cur_mhz, gt.max_mhz) == ("gt0", 300, 2400)


@pytest.mark.parametrize("name", machines.NAMES)
def test_every_machine_is_read_and_nothing_is_wrong_with_it(name: str) -> None:
    for gpu in gpus(name).values():
        before, now = (readings.read(a_machine(name), gpu, at) for at in (0.0, 10.0))
        facts = thresholds.facts(before, now, device=gpu.device, previous={}, limits=Limits())
        assert {fact.condition: fact for fact in facts.values() if fact.severity} == {}
        if gpu.kind is Kind.PF and gpu.driver in ("i915", "xe"):
            assert now.gts, "frequencies are there whatever the driver"
        if gpu.kind is Kind.VF:
            assert (now.off_bus, now.link, now.sensors, now.gts, now.aer) == (False, None, (), (), {}), "those are its PF's"


@pytest.mark.parametrize(("name", "bdf"), [B60, MAX, A770])
def test_nonsense_in_a_file_costs_what_it_says_and_nothing_else(name: str, bdf: str) -> None:
    whole = Spoilt(a_machine(name), lambda _path, text: text)
    good = leaves(msgspec.to_builtins(reading(whole, name, bdf)))
    told_otherwise = ("label", "name", "vendor", "device", "config", "_crit")
    for spoilt in sorted(set(whole.asked)):
        for nonsense in ("", "nonsense\n", "-1\n", f"{2**64 - 1}\n", "1 2 3\n", "\ufffd\n"):
            if not spoilt.endswith(told_otherwise):
                spoil = Spoilt(a_machine(name), lambda path, text, at=spoilt, bad=nonsense: bad if path == at else text)
                seen = leaves(msgspec.to_builtins(reading(spoil, name, bdf)))
                new = {place: leaf for place, leaf in seen.items() if good.get(place) != leaf}
                assert set(new.values()) <= {-0.001, "nonsense"}, f"{spoilt}: {nonsense!r}"


@settings(max_examples=60)
@given(st.sampled_from([B60, MAX, A770]), st.dictionaries(st.integers(0, 250), st.text(max_size=40) | st.integers().map(str), max_size=40))
def test_no_garbage_makes_reading_fail(card: tuple[str, str], garbage: dict[int, str]) -> None:
    name, bdf = card
    places: dict[str, int] = {}
    spoilt = Spoilt(a_machine(name), lambda path, text: garbage.get(places.setdefault(path, len(places)), text))
    before, now = reading(spoilt, name, bdf, 0.0), reading(spoilt, name, bdf, 10.0)
    thresholds.facts(before, now, device="0xe211", previous={}, limits=Limits())
    for sample in telemetry.samples(before, now):
        assert abs(sample.value) < 1e30 and all(len(label) <= 32 for label in sample.labels)


def test_a_card_that_fell_off_the_bus_is_not_asked_further() -> None:
    kernel = machines.kernel(B60[0])
    watched = Spoilt(kernel, lambda path, text: "\ufffd" * 64 if path.endswith("/config") else text)
    assert reading(watched, *B60) == Reading(at=0.0, off_bus=True)
    assert watched.asked[-1].endswith("/config")


HEADER = bytes.fromhex("868011e2060410000000000300000000").ljust(64, b"\0")


@pytest.mark.parametrize(
    ("config", "off_bus"),
    [
        (HEADER, False),
        (b"\xff" * 64, True),
        (b"\xff" * 4096, True),  # what root reads
        (b"\xff\xff\xff\xff" + HEADER[4:], False),  # a VF that is there
        (b"", None),
    ],
)
def test_the_bytes_of_a_real_configuration_space(tmp_path: Path, config: bytes, off_bus: bool | None) -> None:
    device = tmp_path / "bus/pci/devices" / B60[1]
    device.mkdir(parents=True)
    (device / "config").write_bytes(config)
    assert readings.read(RealKernelTree(str(tmp_path)), Gpu(bdf=Bdf(B60[1]), device="0xe211"), 0.0).off_bus is off_bus


def test_a_sleeping_card_is_not_woken() -> None:
    watched = Spoilt(a_machine(B60[0]), lambda path, text: "suspended\n" if path.endswith("18:00.0/power/runtime_status") else text)
    seen = reading(watched, *B60)
    assert (seen.asleep, seen.off_bus, seen.link, seen.sensors, seen.gts) == (True, None, None, (), ())
    waking = ("config", "link_width", "freq", "hwmon", "residency")
    assert [path for path in watched.asked if any(word in path for word in waking)] == []


def test_a_wedged_card_does_not_say_what_it_uses() -> None:
    kernel = machines.kernel(B60[0])
    kernel.wedge(B60[1])
    seen = reading(kernel, *B60)
    assert (seen.memory_used_bytes, seen.sensors[0].celsius) == (None, 47.0)


def test_a_gpu_that_is_gone_reads_as_nothing() -> None:
    assert readings.read(a_machine(B60[0]), Gpu(bdf=Bdf("0000:ff:00.0"), device="0xe211", card=60), 3.0) == Reading(at=3.0)
