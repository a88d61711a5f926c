"""The tables of VF profiles are consistent: what fills a card fits into it."""

from __future__ import annotations

import msgspec
import pytest

from dra import models, vf_profiles
from dra.vf_profiles import FAIR_SHARE, UNKNOWN, Family, VfProfile

FAMILIES = {family.family: family for family in vf_profiles.table()}
EVERY = [pytest.param(family, profile, id=profile.name) for family in vf_profiles.table() for profile in family.profiles]


@pytest.mark.parametrize(("family", "profile"), EVERY)
def test_as_many_as_fill_a_card_fit_into_it(family: Family, profile: VfProfile) -> None:
    totals = family.totals
    assert 0 < profile.per_card * profile.memory_bytes <= totals.memory_bytes
    assert 0 < profile.per_card * profile.memory_ecc_bytes <= totals.memory_ecc_bytes
    assert 0 < profile.per_card * profile.ggtt_bytes_per_gt <= totals.ggtt_bytes_per_gt < 4 << 30
    assert 0 < profile.per_card * profile.doorbells_per_gt <= totals.doorbells_per_gt <= 256
    assert 0 < profile.per_card * profile.contexts_per_gt <= 65535 - 256


@pytest.mark.parametrize(("family", "profile"), EVERY)
def test_one_more_than_fill_a_card_does_not_fit(family: Family, profile: VfProfile) -> None:
    assert (profile.per_card + 1) * profile.memory_bytes > family.totals.memory_bytes or profile.name == "max_48g_c63"


@pytest.mark.parametrize(("family", "profile"), EVERY)
def test_values_are_what_the_kernel_can_allot_without_rounding_up(family: Family, profile: VfProfile) -> None:
    step = family.tiles * (2 << 20)
    assert (profile.memory_bytes % step, profile.memory_ecc_bytes % step) == (0, 0)
    assert (profile.ggtt_bytes_per_gt % (64 << 10), profile.contexts_per_gt % 128) == (0, 0)


@pytest.mark.parametrize(("family", "profile"), EVERY)
def test_units_are_those_of_the_names(family: Family, profile: VfProfile) -> None:
    """A slipped unit is off by a thousand: memory of a VF is 256 MiB to 128 GiB, and a VF gives way within 40 of its turns."""
    assert 256 << 20 <= profile.memory_ecc_bytes <= profile.memory_bytes <= 128 << 30
    assert 1 <= profile.exec_quantum_ms <= 64
    assert 1000 <= profile.preempt_timeout_us / profile.exec_quantum_ms <= 40_000


@pytest.mark.parametrize(("family", "profile"), EVERY)
def test_the_number_that_fills_a_card_is_in_the_name_and_can_be_made(family: Family, profile: VfProfile) -> None:
    assert profile.name.startswith(f"{family.family}_") and profile.name[len(family.family) + 2 :] == str(profile.per_card)
    limits = [model.max_vfs for device in family.devices if (model := models.find(device)) is not None and model.max_vfs is not None]
    assert all(profile.per_card <= limit for limit in limits)
    assert profile.share == 1000 // profile.per_card and profile.share * profile.per_card <= 1000


@pytest.mark.parametrize("family", vf_profiles.table(), ids=lambda family: family.family)
def test_profiles_of_a_family_go_from_large_to_small(family: Family) -> None:
    assert [p.per_card for p in family.profiles] == sorted({p.per_card for p in family.profiles})
    for field in ("memory_bytes", "memory_ecc_bytes", "ggtt_bytes_per_gt", "doorbells_per_gt"):
        values = [getattr(profile, field) for profile in family.profiles]
        assert values == sorted(values, reverse=True), field


@pytest.mark.parametrize("family", vf_profiles.table(), ids=lambda family: family.family)
def test_its_cards_are_known_and_have_its_tiles(family: Family) -> None:
    known = [models.find(device) for device in family.devices]
    assert all(model is not None and model.tiles == family.tiles for model in known)


def test_names_and_cards_are_unique_and_sources_named() -> None:
    names = vf_profiles.names()
    assert len(names) == len(set(names)) and names[0] == "fair-share"
    devices = [device for family in vf_profiles.table() for device in family.devices]
    assert len(devices) == len(set(devices))
    assert {profile.source for family in vf_profiles.table() for profile in family.profiles} == {"intel-dra", "xpum-1.3", "xpum-2"}


@pytest.mark.parametrize(
    ("family", "memory_mib", "doorbells"),
    [
        ("flex170", (16000, 13542), 240),
        ("flex140", (5760, 4654), 240),
        ("max_128g", (122880, 122880), 240),
        ("max_48g", (45056, 45056), 240),
    ],
)
def test_totals_of_intels_tables(family: str, memory_mib: tuple[int, int], doorbells: int) -> None:
    totals = FAMILIES[family].totals
    assert (totals.memory_bytes >> 20, totals.memory_ecc_bytes >> 20) == memory_mib
    assert (totals.doorbells_per_gt, totals.ggtt_bytes_per_gt >> 20) == (doorbells, 3840)


@pytest.mark.parametrize(
    ("name", "memory_mib", "ecc_mib", "ms", "us"),
    [
        ("flex170_m16", 1000, 846, 4, 8000),
        ("flex140_m3", 1920, 1550, 22, 44000),
        ("max_128g_c62", 1980, 1980, 4, 8000),
        ("max_48g_c63", 704, 704, 4, 8000),
        ("b60_n4", 6048, 5126, 50, 616000),
    ],
)
def test_some_profiles(name: str, memory_mib: int, ecc_mib: int, ms: int, us: int) -> None:
    profile = vf_profiles.find(name)
    assert profile is not None
    assert (profile.memory_bytes >> 20, profile.memory_ecc_bytes >> 20) == (memory_mib, ecc_mib)
    assert (profile.exec_quantum_ms, profile.preempt_timeout_us) == (ms, us)


def test_finding() -> None:
    assert [profile.name for profile in vf_profiles.for_device("0x56c1")] == ["flex140_m1", "flex140_m3", "flex140_m6", "flex140_m12"]
    assert vf_profiles.for_device("0x56a0") == () and vf_profiles.family_of("0x56a0") is None
    assert vf_profiles.find("fair-share") is FAIR_SHARE and vf_profiles.find("flex170_m3") is None
    assert vf_profiles.devices_of("b60_n1") == ("0xe211", "0xe216") and vf_profiles.devices_of("mine") == ()


def test_nothing_is_written_for_pseudo_profiles() -> None:
    for pseudo in (FAIR_SHARE, UNKNOWN):
        assert not pseudo.has_quotas and pseudo.share == 0
        assert set(msgspec.structs.astuple(pseudo)) == {pseudo.name, 0, ""}
