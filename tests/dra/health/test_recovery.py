"""Which way back is tried with a wedged card, and in which steps."""

from __future__ import annotations

import pytest

from dra import binding
from dra.devices import Gpu, Kind, State
from dra.health import recovery
from dra.health.recovery import DAY_SECONDS, Attempt, Method, Mode
from dra.names import Bdf, ClaimUid

BDF = Bdf("0000:18:00.0")
NOW = 1_800_000_000.0


def gpu(*ways: str, state: State = State.WEDGED, **more: object) -> Gpu:
    return Gpu(bdf=BDF, device="0xe211", state=state, recovery=ways, **more)  # type: ignore[arg-type]


def tried(method: Method = "rebind", ago: float = 60, *, over: bool = True) -> Attempt:
    return Attempt(bdf=BDF, pci_id="0xe211", method=method, at=NOW - ago, over=over)


@pytest.mark.parametrize(
    ("card", "mode", "per_day", "attempts", "users", "method", "why"),
    [
        (gpu("rebind", "bus-reset"), "rebind", 1, (), (), "rebind", ""),
        (gpu("rebind", "bus-reset"), "off", 1, (), (), None, ""),
        (gpu("bus-reset"), "rebind", 1, (), (), None, "names bus-reset, of which the settings allow none"),
        (gpu("vendor-specific"), "bus-reset", 1, (), (), None, "names vendor-specific"),
        (gpu("rebind", "bus-reset"), "bus-reset", 2, (tried(),), (), "bus-reset", ""),
        (gpu("rebind", "bus-reset"), "bus-reset", 3, (tried(ago=9000), tried("bus-reset", ago=3601)), (), "bus-reset", ""),
        (gpu("rebind", "bus-reset"), "bus-reset", 3, (tried(), tried("bus-reset")), (), None, "bus-reset was tried within the last hour"),
        (gpu("rebind"), "rebind", 1, (tried(),), (), None, "1 of 1 times within a day"),
        (gpu("rebind"), "rebind", 1, (tried(ago=DAY_SECONDS + 1),), (), "rebind", ""),
        (gpu("rebind"), "rebind", 1, (tried(ago=-3600),), (), "rebind", ""),
        (gpu("rebind"), "rebind", 1, (), ("claim-1",), None, "held by claim claim-1"),
        (gpu("rebind", boot_vga=True), "rebind", 1, (), (), None, "shows the console"),
        (gpu("rebind", kind=Kind.VF), "rebind", 1, (), (), None, ""),
        (gpu(state=State.HEALTHY), "rebind", 1, (), (), None, ""),
        (gpu(state=State.NO_DRIVER), "rebind", 1, (), (), None, ""),
        (gpu(state=State.NO_DRIVER), "off", 1, (tried(over=False),), ("claim-1",), "rebind", ""),
        (gpu(state=State.HEALTHY), "rebind", 1, (tried(over=False),), (), None, ""),
    ],
)
def test_what_is_tried(
    card: Gpu, mode: Mode, per_day: int, attempts: tuple[Attempt, ...], users: tuple[str, ...], method: Method | None, why: str
) -> None:
    found, said = recovery.due(card, mode, per_day, attempts, [ClaimUid(user) for user in users], NOW)
    assert found == method and why in said and bool(said) is bool(why)


def test_attempts_count_for_a_day_and_those_cut_short_until_they_are_over() -> None:
    old, ahead = tried(ago=DAY_SECONDS + 1), tried(ago=-99_999_999)
    unfinished = tried(ago=DAY_SECONDS + 1, over=False)
    assert recovery.kept((old, ahead, unfinished, tried()), NOW) == (unfinished, tried())


def test_the_steps_end_with_a_driver_whatever_was_done_before() -> None:
    bound = binding.Facts(bdf=BDF, driver="xe")
    free = binding.Facts(bdf=BDF)
    assert recovery.next_step(bound, "rebind", set()) == binding.Unbind("xe")
    assert recovery.next_step(free, "rebind", {binding.Unbind}) == binding.Probe()
    assert recovery.next_step(bound, "rebind", {binding.Unbind, binding.Probe}) is None
    assert recovery.next_step(free, "bus-reset", {binding.Unbind}) == recovery.Reset()
    assert recovery.next_step(free, "bus-reset", {recovery.Reset}) == binding.Probe()
    assert recovery.next_step(free, "rebind", set()) == binding.Probe(), "of a life that ended between the steps"
    assert recovery.next_step(binding.Facts(bdf=BDF, driver="vfio-pci"), "rebind", set()) is None


def test_what_stands_in_the_way() -> None:
    assert "not on the bus" in (recovery.refusal(binding.Facts(bdf=BDF, present=False)) or "")
    assert "2 VFs that somebody else made" in (recovery.refusal(binding.Facts(bdf=BDF, driver="xe", vfs=2)) or "")
    assert recovery.refusal(binding.Facts(bdf=BDF, driver="xe")) is None
