"""User parameters of a claim: kind GpuConfig of gpu.intel.com/v1alpha1, decoded strictly and merged by precedence.

The text comes from anybody who may create a claim, so nothing of it is trusted: unknown fields, wrong types and oversize are refused
with a sentence that names the field, and no value of it reaches a path, a hook or an environment variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec

from dra.errors import ClaimRefused
from dra.kube.claims import Config
from dra.names import API_VERSION, DRIVER_NAME

MAX_BYTES: Final = 10 * 1024
"""The API server's own limit from Kubernetes 1.32 on; 1.31 has none, so the driver holds it (validation.go, opaque parameters)."""

KIND: Final = "GpuConfig"
DRM: Final = "drm"
"""What a claim writes for the GPU's own driver, to take back what its class says."""
CHOICES: Final = {"driver": ("vfio-pci", "xe-vfio-pci", DRM), "sharing": ("exclusive", "shared")}
"""Fields that take one of a few words; another is refused with all of them."""


class GpuConfig(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one configuration entry may say; a field left out says nothing."""

    api_version: Literal["gpu.intel.com/v1alpha1"]
    kind: Literal["GpuConfig"]
    driver: Annotated[
        Literal["vfio-pci", "xe-vfio-pci", "drm"] | msgspec.UnsetType,
        msgspec.Meta(
            description="Kernel driver that the GPU is bound to while the claim lasts. A vfio driver gives it to a virtual machine: the "
            "container gets vfio nodes instead of the GPU's own. `xe-vfio-pci` (Linux 7.0) takes only VFs of cards on xe, which it can "
            "migrate. `drm`: the GPU's own driver, which is the default.",
            examples=["vfio-pci"],
        ),
    ] = msgspec.UNSET
    profile: Annotated[
        Annotated[str, msgspec.Meta(max_length=63)] | msgspec.UnsetType,
        msgspec.Meta(
            description="Profile of VF that the claim relies on; one that was allocated another is refused. Empty: any. Selectors choose, "
            "this only makes sure.",
            examples=["flex170_m4"],
        ),
    ] = msgspec.UNSET
    sharing: Annotated[
        Literal["exclusive", "shared"] | msgspec.UnsetType,
        msgspec.Meta(
            description="Whether the claim relies on having the GPU to itself or on sharing it with other claims; one that was allocated "
            "otherwise is refused.",
            examples=["exclusive"],
        ),
    ] = msgspec.UNSET
    monitor: Annotated[
        bool | msgspec.UnsetType,
        msgspec.Meta(
            description="Management engine (MEI) and telemetry nodes beside the GPU's own. Only with admin access: they allow firmware "
            "operations.",
            examples=[True],
        ),
    ] = msgspec.UNSET


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one request after all entries are merged."""

    driver: str = ""
    """The vfio driver asked for; empty for the DRM driver."""
    profile: str = ""
    """The profile its VF must have; empty for any."""
    monitor: bool = False


def decode(parameters: bytes) -> GpuConfig:
    """Decode one entry.

    Raises:
        ClaimRefused: with a one-line text for the pod's Event; nothing of it was applied.
    """
    if len(parameters) > MAX_BYTES:
        raise _refused(f"{len(parameters)} bytes, at most {MAX_BYTES} are allowed")
    try:
        raw: Any = msgspec.json.decode(parameters)
    except msgspec.DecodeError as error:
        raise _refused(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _refused("not an object")
    if raw.get("apiVersion") != API_VERSION or raw.get("kind") != KIND:
        found = f"{_shown(raw.get('apiVersion'))} {_shown(raw.get('kind'))}"
        raise _refused(f"apiVersion and kind are {found}, want {API_VERSION} {KIND}")
    for field, choices in CHOICES.items():
        if field in raw and raw[field] not in choices:
            raise _refused(f"field {field!r}: {_shown(raw[field])} is none of {', '.join(choices)}")
    try:
        return msgspec.convert(raw, GpuConfig)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None


def effective(config: Iterable[Config], request: str, *, admin: bool, shared: bool = False) -> Effective:
    """Merge the entries that apply to `request` (`name` or `name/subrequest`).

    Entries come class first, then claim, and a later one overrides an earlier one field by field. An entry applies if it names no
    request, the request, its base name, or the whole `name/subrequest`.

    Args:
        admin: the request has adminAccess.
        shared: its device was allocated to it as a share (the result has a shareID).

    Raises:
        ClaimRefused: an entry of ours that applies is malformed or asks for what the request may not have.
    """
    driver, profile, sharing, monitor = DRM, "", "", False
    base = request.partition("/")[0]
    for entry in config:
        if entry.opaque is None or entry.opaque.driver != DRIVER_NAME:
            continue
        if entry.requests and request not in entry.requests and base not in entry.requests:
            continue
        decoded = decode(bytes(entry.opaque.parameters))
        driver = driver if decoded.driver is msgspec.UNSET else decoded.driver
        profile = profile if decoded.profile is msgspec.UNSET else decoded.profile
        sharing = sharing if decoded.sharing is msgspec.UNSET else decoded.sharing
        monitor = monitor if decoded.monitor is msgspec.UNSET else decoded.monitor
    who = f"request {request!r}"
    if driver != DRM and monitor:
        raise _refused(f"fields 'driver' and 'monitor': {who} asks for both, and there is nothing to monitor under {driver}")
    if monitor and not admin:
        raise _refused(f"field 'monitor': {who} has no adminAccess, which monitor devices need")
    if driver != DRM and admin:
        raise _refused(f"field 'driver': {who} has adminAccess, which never changes a device")
    if driver != DRM and shared:
        raise _refused(f"field 'driver': {who} was allocated a share, and {driver} would take the GPU from the others")
    if sharing and admin:
        raise _refused(f"field 'sharing': {who} has adminAccess, which holds nothing")
    if sharing and (sharing == "shared") is not shared:
        raise _refused(f"field 'sharing': {who} relies on {sharing}, and was allocated {'a share' if shared else 'the whole device'}")
    return Effective(driver="" if driver == DRM else driver, profile=profile, monitor=monitor)


def _refused(text: str) -> ClaimRefused:
    return ClaimRefused(f"opaque configuration for {DRIVER_NAME}: {text}"[:500], reason="InvalidConfig")


def _shown(value: object) -> str:
    return repr(value)[:60]
