"""Which minors of Kubernetes the driver is for, and what is said to others. docs/versions.md has what was proven on which."""

from __future__ import annotations

from typing import Final

from dra import semver
from dra.errors import DriverError

OLDEST: Final = (1, 28)
"""1.27 calls a plugin claim by claim and with 10 s for each, 1.26 in words of its own: neither was ever served here."""
NEWEST: Final = (1, 37)
"""The newest that was seen. Later ones keep resource.k8s.io/v1 and the kubelet's `v1.DRAPlugin`, so the driver goes on there, unproven."""


class UnsupportedRelease(DriverError):
    """The administrator's move: no restart makes this Kubernetes one that the driver is for."""

    reason = "UnsupportedRelease"


def demand(component: str, version: str) -> None:
    """Nothing happens for a release that the driver is for, for newer ones, and for what is no version.

    Args:
        component: `the kubelet`.
        version: `v1.27.3`.

    Raises:
        UnsupportedRelease: in one sentence.
    """
    release = semver.release(version)
    if release is not None and release < OLDEST:
        raise UnsupportedRelease(
            f"{component} is {version}, and this driver is for Kubernetes {_spelled(OLDEST)} and newer: upgrade Kubernetes"
        )


def is_newer(version: str) -> bool:
    """Whether the release came after the newest that was seen."""
    release = semver.release(version)
    return release is not None and release > NEWEST


def remark(component: str, version: str) -> str:
    """What is said once of a newer one."""
    newest = f"{_spelled(NEWEST)}, the newest release that this version of the driver was tried on"
    return f"{component} is {version}, newer than {newest}: going on, unproven"


def _spelled(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"
