"""The memory query against the layout of the uapi headers, written out word by word."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import drm_query
from dra.kernel_tree import MemoryRegion

VRAM = 25669140480


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def test_xe_regions() -> None:
    system = struct.pack("<HHI", 0, 0, 4096) + words(270000000000, 0, 0, 0, *[0] * 6)
    vram = struct.pack("<HHI", 1, 1, 65536) + words(VRAM, 33554432, VRAM, 0, *[0] * 6)
    assert drm_query.xe_regions(struct.pack("<II", 2, 0) + system + vram) == (
        MemoryRegion("system", 0, 270000000000, 0),
        MemoryRegion("device", 1, VRAM, 33554432),
    )


def test_i915_regions() -> None:
    tiles = [struct.pack("<HHI", 1, tile, 0) + words(68719476736, 1, *[0] * 8) for tile in (0, 1)]
    assert drm_query.i915_regions(struct.pack("<4I", 2, 0, 0, 0) + b"".join(tiles)) == (
        MemoryRegion("device", 0, 68719476736),
        MemoryRegion("device", 1, 68719476736),
    )


def test_a_class_nobody_knows_is_left_out() -> None:
    stolen = struct.pack("<HHI", 2, 0, 0) + words(1, 1, *[0] * 8)
    assert drm_query.i915_regions(struct.pack("<4I", 1, 0, 0, 0) + stolen) == ()


def test_requests_have_the_size_in_their_number() -> None:
    for number, request in (
        (drm_query.VERSION, drm_query.version_request(1, 2)),
        (drm_query.I915_QUERY, drm_query.i915_request(1)),
        (drm_query.XE_DEVICE_QUERY, drm_query.xe_request(1, 2)),
    ):
        assert number >> 16 & 0x3FFF == len(request)


@given(st.binary(max_size=300))
def test_any_bytes_are_regions_or_a_valueerror(data: bytes) -> None:
    for parse in (drm_query.i915_regions, drm_query.xe_regions):
        try:
            regions = parse(data)
        except ValueError:
            continue
        assert len(regions) * 88 <= len(data)


def test_short_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        drm_query.xe_regions(struct.pack("<II", 1, 0))
