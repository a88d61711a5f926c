"""Version texts of kernels and drivers, made into semantic versions.

A `version` attribute must be a semantic version 2.0 of at most 64 characters, parsed strictly (k8s.io/api resource/v1
`DeviceAttribute.version`): vendors' `535.104.05` is not one, and one such value gets the whole slice refused.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 64

_RAW: Final = re.compile(r"[vV]?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(.*)", re.DOTALL | re.ASCII)
_RELEASE_CANDIDATE: Final = re.compile(r"-(rc\d+)(?![0-9A-Za-z])")
_STRICT: Final = re.compile(
    r"(0|[1-9]\d{0,18})\.(0|[1-9]\d{0,18})\.(0|[1-9]\d{0,18})"
    r"(-(0|[1-9]\d{0,18}|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d{0,18}|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)


def valid(text: str) -> bool:
    """Whether the API server takes `text` as a version."""
    return len(text) <= LONGEST and _STRICT.fullmatch(text) is not None


def normalise(raw: str) -> str | None:
    """`535.104.05` -> `535.104.5`, `6.8.0-45-generic` -> `6.8.0+45-generic`, `6.13-rc2` -> `6.13.0-rc2`; None if no version is in it.

    What distributions append becomes build metadata, not a pre-release: `6.8.0-45-generic` is no older than 6.8.0.
    """
    match = _RAW.fullmatch(raw.strip())
    if match is None:
        return None
    major, minor, patch, rest = match.groups()
    version = ".".join(str(int(part or "0")) for part in (major, minor, patch))
    candidate = _RELEASE_CANDIDATE.match(rest)
    if candidate is not None:
        version += f"-{candidate[1]}"
        rest = rest[candidate.end() :]
    build = ".".join(part for part in re.sub(r"[^0-9A-Za-z.-]+", "-", rest.lstrip("+-._~ ")).split(".") if part)
    build = build[: max(0, LONGEST - len(version) - 1)].rstrip(".-")
    return f"{version}+{build}" if build else version


def release(text: str) -> tuple[int, int] | None:
    """Major and minor of a Kubernetes version, `v1.34.3-gke.1` -> (1, 34)."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None
