"""The DRM memory query as bytes: include/uapi/drm/{drm,i915_drm,xe_drm}.h on 64-bit little-endian machines, where these GPUs are.

Both drivers are asked twice: first with no room, which answers how much is needed, then with a buffer of that size.
"""

from __future__ import annotations

import struct
from typing import Final

from dra.kernel_tree import MemoryRegion

VERSION: Final = 0xC0406400
"""DRM_IOCTL_VERSION, answered by every DRM driver with its name."""
I915_QUERY: Final = 0xC0106479
I915_GEM_THROTTLE: Final = 0x6458
"""The cheapest i915 call that a wedged device answers with EIO; the query itself does not look."""
XE_DEVICE_QUERY: Final = 0xC0286440

_VERSION: Final = struct.Struct("<iii4xQQQQQQ")
"""struct drm_version: major, minor, patchlevel, then length and pointer of name, date and description."""
_I915_QUERY: Final = struct.Struct("<IIQ")
"""struct drm_i915_query: num_items, flags, items_ptr."""
_I915_ITEM: Final = struct.Struct("<QiIQ")
"""struct drm_i915_query_item: query_id, length (a negative errno if refused), flags, data_ptr."""
_I915_HEADER: Final = struct.Struct("<I12x")
_I915_REGION: Final = struct.Struct("<HHIQQ64x")
"""struct drm_i915_memory_region_info: class, instance, rsvd0, probed_size, unallocated_size, eight more words."""
_I915_MEMORY_REGIONS: Final = 4
_XE_QUERY: Final = struct.Struct("<QIIQ16x")
"""struct drm_xe_device_query: extensions, query, size, data, two reserved words."""
_XE_HEADER: Final = struct.Struct("<I4x")
_XE_REGION: Final = struct.Struct("<HHIQQQQ48x")
"""struct drm_xe_mem_region: class, instance, min_page_size, total_size, used, cpu_visible_size, cpu_visible_used, six reserved words."""
_XE_MEM_REGIONS: Final = 1


def version_request(name_address: int, name_size: int) -> bytes:
    """Ask for the driver's name, to be written to `name_address`."""
    return _VERSION.pack(0, 0, 0, name_size, name_address, 0, 0, 0, 0)


def name_length(answer: bytes) -> int:
    """Length of the driver's name in an answered version request; may exceed the room that was given."""
    return int(_VERSION.unpack(answer)[3])


def i915_request(item_address: int) -> bytes:
    return _I915_QUERY.pack(1, 0, item_address)


def i915_item(data_address: int, data_size: int) -> bytes:
    return _I915_ITEM.pack(_I915_MEMORY_REGIONS, data_size, 0, data_address)


def i915_length(item: bytes) -> int:
    """Bytes needed or written; negative: the errno with which this query was refused."""
    return int(_I915_ITEM.unpack(item)[1])


def xe_request(data_address: int, data_size: int) -> bytes:
    return _XE_QUERY.pack(0, _XE_MEM_REGIONS, data_size, data_address)


def xe_size(answer: bytes) -> int:
    """Bytes needed or written."""
    return int(_XE_QUERY.unpack(answer)[2])


def i915_regions(data: bytes) -> tuple[MemoryRegion, ...]:
    """Read struct drm_i915_query_memory_regions.

    Raises:
        ValueError: fewer bytes than it says.
    """
    return _regions(data, _I915_HEADER, _I915_REGION)


def xe_regions(data: bytes) -> tuple[MemoryRegion, ...]:
    """Read struct drm_xe_query_mem_regions.

    Raises:
        ValueError: fewer bytes than it says.
    """
    return _regions(data, _XE_HEADER, _XE_REGION, told_used=True)


def _regions(data: bytes, header: struct.Struct, region: struct.Struct, *, told_used: bool = False) -> tuple[MemoryRegion, ...]:
    """Both drivers number class 0 system and class 1 device memory, and have class, instance, a word and the size in front."""
    if len(data) < header.size or len(data) < header.size + header.unpack_from(data)[0] * region.size:
        raise ValueError(f"the memory query answered {len(data)} bytes, too few for the regions it counts")
    found = []
    for index in range(header.unpack_from(data)[0]):
        kind, instance, _, size_bytes, used_bytes, *_ = region.unpack_from(data, header.size + index * region.size)
        if kind in (0, 1):  # a class nobody knows yet is no memory to count
            found.append(MemoryRegion("device" if kind == 1 else "system", instance, size_bytes, used_bytes if told_used else None))
    return tuple(found)
