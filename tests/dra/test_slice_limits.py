from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import semver, slice_limits
from dra.names import DeviceName
from dra.pool import Device, Effect, Taint, Version

GOOD = Device(name=DeviceName("gpu-0"), attributes={"model": "Flex 170", "pci.example/x": 1}, capacity={"memory": "16Gi"})


def test_a_good_device_passes_untouched() -> None:
    assert slice_limits.check(GOOD) == (GOOD, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [("9lives", 1), ("a-b", 1), ("x" * 33, 1), ("Bad_Domain/x", 1), ("/x", 1), ("v", Version("535.104.05")), ("n", 1 << 63), ("", 1)],
)
def test_one_bad_attribute_goes_and_the_device_stays(name: str, value: int | Version) -> None:
    device, dropped = slice_limits.check(Device(name=GOOD.name, attributes={name: value, "model": "M"}, capacity={"memory": "1Gi"}))
    assert device is not None and dict(device.attributes) == {"model": "M"} and dict(device.capacity) == {"memory": "1Gi"}
    assert [(one.what, one.name) for one in dropped] == [("attribute", name)]


def test_a_bad_capacity_goes() -> None:
    device, dropped = slice_limits.check(Device(name=GOOD.name, capacity={"memory": "lots", "millicores": "1k"}))
    assert device is not None and dict(device.capacity) == {"millicores": "1k"}
    assert dropped[0].what == "capacity"


def test_at_most_32_values_and_capacities_first() -> None:
    device, dropped = slice_limits.check(Device(name=GOOD.name, attributes={f"a{n}": n for n in range(40)}, capacity={"memory": "1Gi"}))
    assert device is not None and len(device.attributes) == 31 and device.capacity
    assert len(dropped) == 9


@given(st.text())
def test_strings_are_cut_at_a_character(text: str) -> None:
    cut = slice_limits.cut(text)
    assert len(cut.encode()) <= 64
    assert len(text.encode(errors="replace")) > 64 or cut == text.encode(errors="replace").decode()


@pytest.mark.parametrize("name", ["Upper", "x" * 64, "-x", "x-", "", "a.b", "a\n"])
def test_a_device_without_a_publishable_name_is_not_published(name: str) -> None:
    device, dropped = slice_limits.check(Device(name=DeviceName(name)))
    assert device is None and dropped[0].what == "device"


@pytest.mark.parametrize(
    "taint", [Taint("gpu.intel.com/" + "x" * 64, Effect.NO_EXECUTE), Taint("a b", Effect.NO_SCHEDULE), Taint("k", Effect.NONE, "a/b")]
)
def test_a_device_whose_taint_cannot_be_said_is_withdrawn_rather_than_offered_as_sound(taint: Taint) -> None:
    device, dropped = slice_limits.check(Device(name=GOOD.name, taints=(taint,)))
    assert device is None and dropped[0].what == "taint"


def test_the_gravest_taints_stay() -> None:
    taints = (*(Taint(f"gpu.intel.com/a{n}", Effect.NONE) for n in range(5)), Taint("gpu.intel.com/z", Effect.NO_EXECUTE))
    device, _ = slice_limits.check(Device(name=GOOD.name, taints=taints))
    assert device is not None and taints[-1] in device.taints


def test_taints_are_sorted_and_bounded() -> None:
    taints = tuple(Taint(f"gpu.intel.com/t{n}", Effect.NO_SCHEDULE) for n in reversed(range(6)))
    device, dropped = slice_limits.check(Device(name=GOOD.name, taints=taints))
    assert device is not None and [taint.key[-2:] for taint in device.taints] == ["t0", "t1", "t2", "t3"]
    assert len(dropped) == 2


@given(
    st.dictionaries(st.text(max_size=40), st.one_of(st.booleans(), st.integers(), st.text(), st.builds(Version, st.text())), max_size=50)
)
def test_whatever_comes_out_is_within_the_limits(values: dict[str, bool | int | str | Version]) -> None:
    device, _ = slice_limits.check(Device(name=GOOD.name, attributes=values))
    assert device is not None and len(device.attributes) <= 32
    for value in device.attributes.values():
        assert not isinstance(value, str) or len(value.encode()) <= 64
        assert not isinstance(value, Version) or semver.valid(value.text)
