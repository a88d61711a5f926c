"""Quantities and versions as the scheduler compares them (apimachinery `resource.Quantity`, semver 2.0).

Unlike `dra.quantities` it takes whatever an API server takes, also numbers, and stops where a Quantity stops.
"""

from __future__ import annotations

import re
from typing import Final

_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_QUANTITY: Final = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([eE][+-]?\d+|Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E)?", re.ASCII)
_SCALES: Final = {
    "n": -9,
    "u": -6,
    "m": -3,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_DECIMALS: Final = sorted((*_SCALES.items(), ("", 0)), key=lambda pair: -pair[1])
_BINARIES: Final = tuple(zip(range(6, -1, -1), ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", ""), strict=True))


def semver(text: str) -> bool:
    return _SEMVER.fullmatch(text) is not None


def semver_key(text: str) -> tuple[object, ...]:
    """Sorts as semver 2.0 says: build metadata does not count, a pre-release comes before its release.

    Raises:
        ValueError: not a semantic version.
    """
    match = _SEMVER.fullmatch(text)
    if match is None:
        raise ValueError(f"not a semantic version: {text}")
    major, minor, patch, pre = match[1], match[2], match[3], match[5]
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    return (int(major), int(minor), int(patch), pre is None, parts)


QUANTITY_AT_MOST: Final = (2**63 - 1) * 10**9
"""What is more counts as this (apimachinery/pkg/api/resource), in billionths."""


def quantity(text: object) -> int:
    """The value in billionths.

    Raises:
        ValueError: not a quantity.
    """
    match = _QUANTITY.fullmatch(str(text)) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    sign, number, suffix = match.groups()
    whole, _, fraction = number.partition(".")
    value, power = int((whole + fraction) or "0"), 9 - len(fraction)
    if suffix and suffix.endswith("i"):
        value *= 1024 ** (1 + "KMGTPE".index(suffix[0]))
    elif suffix in _SCALES:
        power += _SCALES[suffix]
    elif suffix:
        # Beyond a thousand it is the most or next to nothing in any case, and powers of ten take for ever.
        power += max(-1000, min(1000, int(suffix[1:])))
    value = int(value * 10**power) if power >= 0 else -(-value // 10**-power)
    value = min(value, QUANTITY_AT_MOST)
    return -value if sign == "-" else value


def quantity_text(value: int, *, binary: bool) -> str:
    """Billionths as the API server writes them: with the largest suffix that leaves a whole number; binary ones from 1024 on."""
    whole, rest = divmod(value, 10**9)
    if binary and not rest and abs(whole) >= 1024:
        power, suffix = next((power, suffix) for power, suffix in _BINARIES if whole % 1024**power == 0)
        return f"{whole // 1024**power}{suffix}"
    if value == 0:
        return "0"
    suffix, scale = next((suffix, scale) for suffix, scale in _DECIMALS if value % 10 ** (9 + scale) == 0)
    return f"{value // 10 ** (9 + scale)}{suffix}"
