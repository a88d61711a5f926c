"""Kubernetes quantity text and numbers.

Grammar and precision: k8s.io/apimachinery `resource.Quantity`. The API server sends a quantity back in canonical form (`1024Mi` comes
back as `1Gi`), so quantities are compared by value, never by text.
"""

from __future__ import annotations

import re
from typing import Final

NANO: Final = 10**9
"""Quantities are exact to one billionth; what is finer is rounded away from zero."""

_TEXT: Final = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]))?", re.ASCII)
_BINARY: Final = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def nanos(text: str) -> int:
    """The value in billionths: `500m` -> 500_000_000.

    Raises:
        ValueError: not a quantity.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"not a quantity: {text[:40]!r}")
    sign, number, exponent, suffix = match.groups()
    whole, _, fraction = number.partition(".")
    digits, power = int((whole + fraction) or "0"), 9 - len(fraction)
    if exponent is not None:
        power += int(exponent[1:])
    elif suffix in _BINARY:
        digits *= _BINARY[suffix]
    elif suffix is not None:
        power += _DECIMAL[suffix]
    value: int = digits * 10**power if power >= 0 else -(-digits // 10**-power)
    return -value if sign == "-" else value


def parse(text: str) -> int:
    """The value as a whole number, rounded away from zero as `Quantity.Value()` does: `1500m` -> 2.

    Raises:
        ValueError: not a quantity.
    """
    value = nanos(text)
    return -(-value // NANO) if value >= 0 else value // NANO


def equal(one: str, other: str) -> bool:
    """Whether two texts mean the same value; texts that are no quantities are equal only if they are the same."""
    try:
        return nanos(one) == nanos(other)
    except ValueError:
        return one == other


def mebibytes(size_bytes: int) -> str:
    """Bytes as `<n>Mi`, rounded down: what is promised exists."""
    return f"{size_bytes >> 20}Mi"
