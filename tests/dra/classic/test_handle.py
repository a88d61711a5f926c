from __future__ import annotations

import pytest

from dra.classic import handle
from dra.classic.handle import Handle, Part
from dra.errors import ClaimRefused

WHOLE = Handle(version=1, node="worker-1", parts=(Part(uid="0000:03:00.0-0x56c0", memory=16128, millicores=1000),))


def test_its_text_is_what_other_versions_read() -> None:
    assert handle.render(WHOLE) == (
        '{"version":1,"node":"worker-1","parts":[{"uid":"0000:03:00.0-0x56c0","memory":16128,"millicores":1000}]}'
    )
    vfs = Part(uid="0000:04:00.0-0x56c0", vfs=(1, 2), layout=(("flex170_m4", 4),))
    assert handle.render(Handle(version=1, node="n", parts=(vfs,), shared=True)) == (
        '{"version":1,"node":"n","parts":[{"uid":"0000:04:00.0-0x56c0","vfs":[1,2],"layout":[["flex170_m4",4]]}],"shared":true}'
    )
    assert handle.parse(handle.render(WHOLE)) == WHOLE


def test_the_largest_claim_fits_and_what_does_not_is_not_written() -> None:
    def claim(cards: int) -> Handle:
        layout = tuple((f"max_128g_c{size}", 1) for size in range(62))
        return Handle(
            version=1,
            node="n" * 253,
            parts=tuple(Part(uid=f"0000:{n:02x}:00.0-0x0bd5", vfs=tuple(range(1, 63)), layout=layout) for n in range(cards)),
        )

    even = tuple(Part(uid=f"0000:{n:02x}:00.0-0x0bd5", vfs=tuple(range(1, 65)), layout=(("max_128g_c62", 64),)) for n in range(10))
    assert len(handle.render(Handle(version=1, node="n" * 253, parts=even))) < handle.MOST_BYTES
    with pytest.raises(ValueError, match="16384 is the most"):
        handle.render(claim(20))


def test_the_originals_word_for_a_monitor_is_understood() -> None:
    assert handle.parse("monitor") == Handle(version=1, node="", monitor=True)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "the claim's resource handle is not this driver's"),
        ("{", "the claim's resource handle is not this driver's"),
        ("[]", "the claim's resource handle is not this driver's"),
        ('{"node":"n"}', "has version 0, this driver knows 1: update the node plugin"),
        ('{"version":2,"node":"n","new":true}', "has version 2, this driver knows 1: update the node plugin"),
        ('{"version":1}', "the claim's resource handle is not this driver's"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(data: str, sentence: str) -> None:
    with pytest.raises(ClaimRefused, match=sentence):
        handle.parse(data)


def test_layouts_are_written_by_runs() -> None:
    profiles = ["a", "a", "b", "a"]
    assert handle.run_length(profiles) == (("a", 2), ("b", 1), ("a", 1))
    assert list(handle.profiles_of(handle.run_length(profiles))) == profiles
