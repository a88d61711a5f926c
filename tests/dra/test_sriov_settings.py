"""The `sriov` part of a settings file is taken or refused with the place, and becomes a layout for each card."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import layouts, sriov_settings, vf_profiles
from dra.devices import Gpu
from dra.sriov_settings import Sriov, Wanted
from dra.vf_cards import Card
from dra.vf_profiles import FAIR_SHARE
from tests.fakes.vf_cards import B60, B60_DEBUGFS, CARDS, FLEX_170, FLEX_170_ECC, MAX_1550, PANTHER_LAKE, like, named

FLEX = {"pciId": "0x56c0"}
ANY_B60 = {"model": "Arc Pro B60"}


def decode(**fields: Any) -> Sriov:
    return msgspec.convert({"mode": "fixed"} | fields, Sriov)


def gpu(card: Card, **fields: Any) -> Gpu:
    return Gpu(bdf=card.bdf, device=card.device, max_vfs_usable=card.max_vfs, **fields)


def want(card: Card, vfs: object, **fields: Any) -> Wanted:
    sriov = decode(layouts=[{"select": {"pciId": card.device}, "vfs": vfs}], **fields)
    assert sriov_settings.faults(sriov) == ()
    return sriov_settings.wanted(sriov, gpu(card), card, {})


def test_nothing_is_cut_by_default() -> None:
    assert Sriov() == msgspec.convert({}, Sriov) and Sriov().mode == "auto"
    assert sriov_settings.faults(Sriov()) == ()
    assert sriov_settings.wanted(Sriov(), gpu(B60), B60, {}) == Wanted()


def test_mode_off_keeps_layouts_for_later() -> None:
    sriov = decode(mode="off", layouts=[{"select": FLEX, "vfs": "flex170_m8"}])
    assert sriov_settings.faults(sriov) == () and sriov_settings.wanted(sriov, gpu(FLEX_170), FLEX_170, {}) == Wanted()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "dynamic"}, "Invalid enum value 'dynamic' - at `$.mode`"),
        ({"make": "now"}, "Invalid enum value 'now' - at `$.make`"),
        ({"keep": True}, "Expected `str`, got `bool` - at `$.keep`"),
        ({"layouts": [{"vfs": "fair-share"}]}, "missing required field `select` - at `$.layouts[0]`"),
        ({"layouts": [{"select": FLEX, "vfs": 4}]}, "Expected `str | array`, got `int` - at `$.layouts[0].vfs`"),
        ({"layouts": [{"select": FLEX, "vfs": [{"profile": "flex170_m8", "count": 0}]}]}, "at `$.layouts[0].vfs[0].count`"),
        ({"profiles": [{"name": "x", "memory": 4}]}, "Expected `str`, got `int` - at `$.profiles[0].memory`"),
        ({"profiles": [{"name": "x", "memory": "4Gi", "doorbells": 257}]}, "Expected `int` <= 256 - at `$.profiles[0].doorbells`"),
        ({"profiles": [{"name": "x", "memory": "4Gi", "execQuantum": 1}]}, "unknown field `execQuantum`"),
    ],
)
def test_wrong_types_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        decode(**fields)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "mode fixed needs to be told how to cut which cards - at `$.sriov.layouts`"),
        (
            {"layouts": [{"select": {}, "vfs": "fair-share"}]},
            "a selector that names nothing would match every GPU - at `$.sriov.layouts[0].select`",
        ),
        (
            {"layouts": [{"select": FLEX, "vfs": "flex170_m6"}]},
            "there is no profile 'flex170_m6'; did you mean flex170_m16? - at `$.sriov.layouts[0].vfs`",
        ),
        (
            {"layouts": [{"select": FLEX, "vfs": "fair-share"}, {"select": FLEX, "vfs": [{"profile": "zzz\n", "count": 1}]}]},
            "there is no profile 'zzz\\n' - at `$.sriov.layouts[1].vfs[0].profile`",
        ),
        (
            {"layouts": [{"select": FLEX, "vfs": "unknown"}]},
            "there is no profile 'unknown' - at `$.sriov.layouts[0].vfs`",
        ),
        (
            {"layouts": [{"select": FLEX, "vfs": [{"profile": "fair-share", "count": 1}, {"profile": "flex170_m8", "count": 1}]}]},
            "fair-share beside other profiles: the kernel splits the whole card or nothing - at `$.sriov.layouts[0].vfs`",
        ),
        (
            {"layouts": [{"select": FLEX, "vfs": []}]},
            "an empty list of VFs says nothing; leave the entry out - at `$.sriov.layouts[0].vfs`",
        ),
        (
            {"profiles": [{"name": "Half", "memory": "8Gi"}], "mode": "off"},
            "'Half' is not a name: lower-case letters, digits, `_` and `-`, at most 63 - at `$.sriov.profiles[0].name`",
        ),
        (
            {"profiles": [{"name": "flex170_m2", "memory": "8Gi"}], "mode": "off"},
            "flex170_m2 is a profile of the driver's own - at `$.sriov.profiles[0].name`",
        ),
        (
            {"profiles": [{"name": "unknown", "memory": "8Gi"}], "mode": "off"},
            "unknown is a profile of the driver's own - at `$.sriov.profiles[0].name`",
        ),
        (
            {"profiles": [{"name": "half", "memory": "8Gi"}, {"name": "half", "memory": "7Gi"}], "mode": "off"},
            "half is there twice - at `$.sriov.profiles[1].name`",
        ),
        (
            {"profiles": [{"name": "half", "memory": "8 GB"}], "mode": "off"},
            "'8 GB' is not a quantity of bytes such as 4Gi - at `$.sriov.profiles[0].memory`",
        ),
        (
            {"profiles": [{"name": "half", "memory": "8Gi", "ggtt": "-1"}], "mode": "off"},
            "'-1' is not a quantity of bytes such as 4Gi - at `$.sriov.profiles[0].ggtt`",
        ),
    ],
)
def test_faults_name_the_field(fields: dict[str, Any], sentence: str) -> None:
    assert sriov_settings.faults(decode(**fields)) == (sentence,)


@pytest.mark.parametrize(
    ("card", "vfs", "names"),
    [
        (FLEX_170, "flex170_m8", "8 × flex170_m8"),
        (B60, "fair-share", "24 × fair-share"),
        (B60_DEBUGFS, [{"profile": "fair-share", "count": 4}], "4 × fair-share"),
        (PANTHER_LAKE, "fair-share", "7 × fair-share"),
        (MAX_1550, [{"profile": "max_128g_c2", "count": 1}, {"profile": "max_128g_c4", "count": 2}], "max_128g_c2 + 2 × max_128g_c4"),
        (like(FLEX_170, max_vfs=3), "flex170_m8", "3 × flex170_m8"),
    ],
)
def test_layouts(card: Card, vfs: object, names: str) -> None:
    made = want(card, vfs)
    assert (layouts.describe(made.layout), made.why) == (names, ())


def test_own_profiles() -> None:
    own = {
        "name": "third",
        "memory": "5Gi",
        "ggtt": "1Gi",
        "contexts": 512,
        "doorbells": 64,
        "execQuantumMs": 20,
        "preemptTimeoutUs": 40000,
    }
    made = want(FLEX_170, [{"profile": "third", "count": 2}, {"profile": "flex170_m4", "count": 1}], profiles=[own])
    third = made.layout[0]
    assert [profile.name for profile in made.layout] == ["third", "third", "flex170_m4"]
    assert (third.memory_bytes, third.ggtt_bytes_per_gt, third.contexts_per_gt, third.doorbells_per_gt) == (5 << 30, 1 << 30, 512, 64)
    assert (third.exec_quantum_ms, third.preempt_timeout_us) == (20, 40000)
    assert len(want(FLEX_170, "third", profiles=[own]).layout) == 3


def test_a_card_that_cannot_be_cut_so_is_left_whole_with_the_reasons() -> None:
    made = want(FLEX_170_ECC, [{"profile": "big", "count": 1}], profiles=[{"name": "big", "memory": "14Gi"}])
    assert made == Wanted((), ("big need 15032385536 bytes of memory, 0000:2c:00.0 has 14805893120 for VFs",))
    assert want(like(B60, max_vfs=0), "fair-share") == Wanted((), ("0000:18:00.0 can have no VFs with the driver it has",))
    assert want(B60, "flex170_m8").why[0].startswith("profile flex170_m8 is for 0x56c0, 0x56c2")


def test_the_first_entry_that_selects_a_card_holds() -> None:
    sriov = decode(layouts=[{"select": {"bdf": B60.bdf}, "vfs": "b60_n4"}, {"select": ANY_B60, "vfs": "b60_n2"}])
    other = like(B60, bdf="0000:3a:00.0")
    for card, vfs in ((B60, (named("b60_n4"),) * 4), (other, (named("b60_n2"),) * 2), (FLEX_170, ())):
        model = "Arc Pro B60" if card.device == B60.device else "Flex 170"
        assert sriov_settings.wanted(sriov, gpu(card, model=model), card, {}) == Wanted(vfs)


def test_the_schema_has_what_the_decoder_takes() -> None:
    schema = msgspec.json.schema(Sriov)
    jsonschema.validate({"mode": "fixed", "layouts": [{"select": FLEX, "vfs": [{"profile": "flex170_m8", "count": 2}]}]}, schema)
    jsonschema.validate({"layouts": [{"select": FLEX, "vfs": "fair-share"}], "profiles": [{"name": "q", "memory": "4Gi"}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"profiles": [{"name": "Q", "memory": "4Gi"}]}, schema)


names = st.sampled_from([*vf_profiles.names(), "own", "nobody"])
own_profiles = st.lists(
    st.builds(
        sriov_settings.OwnProfile,
        name=st.sampled_from(["own", "other", "B"]),
        memory=st.sampled_from(["1", "300Mi", "3Gi", "5e9", "none", "1e40"]),
        ggtt=st.sampled_from([None, "1Gi", "x"]),
    ),
    max_size=2,
).map(tuple)
counts = st.lists(st.builds(sriov_settings.VfCount, profile=names, count=st.integers(1, 80)), max_size=3).map(tuple)


@given(st.sampled_from(CARDS), names | counts, own_profiles)
def test_settings_without_faults_become_feasible_layouts_or_reasons(card: Card, vfs: Any, own: Any) -> None:
    selector = sriov_settings.Selector(pci_id=card.device)
    sriov = Sriov(mode="fixed", layouts=(sriov_settings.Cut(select=selector, vfs=vfs),), profiles=own)
    if found := sriov_settings.faults(sriov):
        assert all(" - at `$.sriov." in fault and "\n" not in fault and len(fault) < 300 for fault in found)
        return
    made = sriov_settings.wanted(sriov, gpu(card), card, {})
    assert bool(made.layout) != bool(made.why)
    assert layouts.feasible(made.layout, card) == ()
    assert made.layout == () or FAIR_SHARE not in made.layout or set(made.layout) == {FAIR_SHARE}


def test_kubelets_up_to_1_30_have_cards_cut_on_demand_unless_told_otherwise() -> None:
    assert sriov_settings.for_classic(Sriov()).mode == "on-demand"
    assert sriov_settings.for_classic(decode(mode="off")).mode == "off"
    fixed = sriov_settings.for_classic(decode(layouts=[{"select": {}, "vfs": "b60_n4"}]))
    assert (fixed.mode, fixed.make) == ("fixed", "eager")


def test_which_cards_may_come_to_be_cut() -> None:
    uncuttable = msgspec.structs.replace(gpu(B60), max_vfs_usable=0)
    on_demand = sriov_settings.for_classic(Sriov())
    assert sriov_settings.may_cut(on_demand, gpu(B60), {}) and not sriov_settings.may_cut(on_demand, uncuttable, {})
    assert not sriov_settings.may_cut(Sriov(), gpu(B60), {})


def test_a_layout_that_claims_rely_on_is_made_of_its_names() -> None:
    own = decode(profiles=[{"name": "small", "memory": "1Gi"}])
    assert [one.name for one in sriov_settings.promised(own, ["small", "b60_n4"], B60).layout] == ["small", "b60_n4"]
    assert sriov_settings.unknown_profiles(own, ["small", "b60_n4", "fair-share", "no", "no"]) == ["no"]
    assert sriov_settings.promised(own, ["no"], B60) == Wanted((), ("there is no profile 'no' any more",))
