"""How a kubelet chooses what to speak from the list a plugin announces."""

from __future__ import annotations

import re
from typing import Final

_NUMBERS: Final = re.compile(r"v?(\d+(?:\.\d+)+)(.*)")
_NEW: Final = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
_MIDDLE: Final = ("v1beta1.DRAPlugin", "v1alpha3.NodeService")


class Unusable(Exception):
    """No version on the list will do."""


def highest(announced: list[str]) -> tuple[int, ...]:
    """Kubernetes up to 1.31: the highest number of major version 0 or 1; what is no number is passed over.

    Raises:
        Unusable
    """
    numbers = [tuple(int(part) for part in match[1].split(".")) for text in announced if (match := _NUMBERS.fullmatch(text))]
    usable = [number for number in numbers if number[0] <= 1]
    if not usable:
        raise Unusable(f"could not find the highest supported version in {announced}")
    return max(usable)


def service(minor: int, announced: list[str]) -> str:
    """Key of `plugin_calls.SERVICES`.

    Raises:
        Unusable
    """
    if not announced:
        raise Unusable("empty list for supported versions")
    if minor <= 31:
        highest(announced)
        return "v1alpha3.NodeService"
    if minor <= 33:
        return next((known for known in _MIDDLE if known in announced), "v1alpha3.NodeService")
    chosen = next((text for text in announced if text in _NEW), None)
    if chosen is None:
        raise Unusable(f"none of the supported versions of the plugin are supported by the kubelet: {announced}, kubelet: {list(_NEW)}")
    return chosen
