"""What kubelets up to 1.30 make of CDI device names: an annotation of the container, with limits and a parser of their own.

kk 1.28.15 pkg/kubelet/cm/util/cdi/cdi.go. A name that these do not take fails the whole prepare, after the driver has said yes.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "cdi.k8s.io/"
LONGEST: Final = 63
"""Of what stands behind the prefix: a claim UID and an underscore leave 26 characters to the driver's name."""

_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_VENDOR: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
"""No dot, which came later."""
_DEVICE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def made(driver: str, claim_uid: str, cdi_names: list[str]) -> dict[str, str]:
    """Annotation -> names; none for no names.

    Args:
        driver: the claim's `status.driverName`, whichever plugin answered.

    Raises:
        ValueError: as the kubelet says it.
    """
    if not cdi_names:
        return {}
    if not driver:
        raise ValueError("CDI annotation key error: invalid plugin name, empty")
    key = f"{driver}_{claim_uid.replace('/', '_')}"
    if len(key) > LONGEST:
        raise ValueError(f'CDI annotation key error: invalid plugin+deviceID "{key}", too long')
    if _KEY.fullmatch(key) is None:
        raise ValueError(f'CDI annotation key error: invalid name "{key}"')
    for name in cdi_names:
        _parse(name)
    return {f"{PREFIX}{key}": ",".join(cdi_names)}


def _parse(name: str) -> None:
    kind, equals, device = name.partition("=")
    vendor, slash, kind_class = kind.partition("/")
    if not (equals and slash and vendor and kind_class and device):
        raise ValueError(f'CDI annotation value error: unqualified device "{name}", missing vendor, class or device name')
    for what, part, grammar in (("vendor", vendor, _VENDOR), ("class", kind_class, _CLASS), ("device", device, _DEVICE)):
        if grammar.fullmatch(part) is None:
            raise ValueError(f'CDI annotation value error: invalid device "{name}": invalid {what} "{part}"')
