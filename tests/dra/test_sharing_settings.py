"""The `sharing` part of a settings file is taken or refused with the place, and becomes terms the API server takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import sharing_settings, slice_limits
from dra.devices import Gpu, Kind
from dra.names import Bdf
from dra.pool import Device, SharePolicy
from dra.sharing_settings import Sharing

ARC = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56a0", memory_bytes=(16 << 30) + 4096)
IRIS = Gpu(bdf=Bdf("0000:00:02.0"), device="0x9a49", integrated=True)
VF = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=Bdf("0000:18:00.0"), vf_index=1, memory_bytes=1 << 30)
CUT = Gpu(bdf=Bdf("0000:18:00.0"), device="0xe211", vfs_now=1, memory_bytes=24 << 30)
ANY = ({"integrated": False}, {"integrated": True})


def decode(*entries: dict[str, Any]) -> tuple[Sharing, ...]:
    return msgspec.convert(list(entries), tuple[Sharing, ...])


def everything(**policy: Any) -> tuple[Sharing, ...]:
    return decode(*({"select": select, **policy} for select in ANY))


def test_a_gpu_no_entry_selects_is_for_one_claim() -> None:
    sharing = decode({"select": {"pciId": "0x56a0"}, "policy": "shares", "shares": 4})
    assert sharing_settings.faults(sharing) == ()
    assert sharing_settings.terms_of(sharing, IRIS) == {} and sharing_settings.why_exclusive(sharing, IRIS) is None
    assert sharing_settings.terms_of((), ARC) == {}


def test_the_first_entry_that_selects_a_gpu_holds() -> None:
    sharing = decode({"select": {"bdf": "0000:03:00.0"}, "policy": "exclusive"}, {"select": ANY[0], "policy": "shares", "shares": 2})
    assert sharing_settings.terms_of(sharing, ARC) == {}
    assert sharing_settings.terms_of(sharing[::-1], ARC) != {}


def test_shares_are_counted_one_a_claim_also_of_a_gpu_without_memory_of_its_own() -> None:
    for gpu in (ARC, IRIS):
        assert sharing_settings.terms_of(everything(policy="shares", shares=4), gpu) == {"shares": SharePolicy("1", "1", "4", "1")}


def test_memory_is_shared_by_the_mebibyte_and_a_claim_that_names_none_has_it_all() -> None:
    terms = sharing_settings.terms_of(everything(policy="memory"), ARC)
    assert terms == {"memory": SharePolicy(default="16384Mi", min="1Mi", max="16384Mi", step="1Mi")}


@pytest.mark.parametrize(
    ("policy", "gpu", "words"),
    [
        ({"policy": "memory"}, IRIS, "the memory of 0000:00:02.0 is not known"),
        ({"policy": "shares", "shares": 2}, VF, "0000:18:00.1 is a VF"),
        ({"policy": "memory"}, CUT, "0000:18:00.0 has VFs"),
    ],
)
def test_what_cannot_be_shared_stays_exclusive_and_says_why(policy: dict[str, Any], gpu: Gpu, words: str) -> None:
    sharing = everything(**policy)
    assert sharing_settings.terms_of(sharing, gpu) == {}
    assert words in (sharing_settings.why_exclusive(sharing, gpu) or "")
    assert sharing_settings.why_exclusive(everything(policy="exclusive"), gpu) is None


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"select": {}, "policy": "exclusive"},
            "a selector that names nothing would match every GPU - at `$.sharing[1].select`",
        ),
        (
            {"select": {"bdf": "18:00.0"}, "policy": "memory"},
            "'18:00.0' is not a PCI address such as 0000:18:00.0 (lower case) - at `$.sharing[1].select`",
        ),
        ({"select": ANY[0], "policy": "shares"}, "policy shares needs to be told how many - at `$.sharing[1].shares`"),
        ({"select": ANY[0], "policy": "memory", "shares": 3}, "policy memory has no number of shares - at `$.sharing[1].shares`"),
    ],
)
def test_faults_name_the_place(entry: dict[str, Any], sentence: str) -> None:
    assert sharing_settings.faults(decode({"select": ANY[1], "policy": "memory"}, entry)) == (sentence,)


@pytest.mark.parametrize("entry", [{"policy": "shares", "shares": 1}, {"policy": "shares", "shares": 257}, {"policy": "time-slices"}, {}])
def test_wrong_types_and_numbers_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode({"select": ANY[0], **entry})


@given(st.integers(2, 256), st.integers(2 << 20, 1 << 40), st.sampled_from(["shares", "memory"]))
def test_the_server_takes_whatever_comes_out(count: int, memory_bytes: int, policy: str) -> None:
    gpu = msgspec.structs.replace(ARC, memory_bytes=memory_bytes)
    sharing = everything(policy=policy, **({"shares": count} if policy == "shares" else {}))
    assert sharing_settings.faults(sharing) == ()
    raw = Device(name=gpu.name, capacity={"memory": f"{memory_bytes >> 20}Mi"}, shares=sharing_settings.terms_of(sharing, gpu))
    device, dropped = slice_limits.check(raw)
    assert dropped == () and device is not None and device.shares
