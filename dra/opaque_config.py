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
LATER: Final = {
    "driver": "switching a GPU between its DRM driver and VFIO",
    "profile": "carving Virtual Functions for a claim",
    "sharing": "sharing one GPU between claims",
}
"""Fields with a settled name whose feature this version does not have: refused by name instead of as a typing error."""


class GpuConfig(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one configuration entry may say; a field left out says nothing."""

    api_version: Literal["gpu.intel.com/v1alpha1"]
    kind: Literal["GpuConfig"]
    monitor: Annotated[
        bool | msgspec.UnsetType,
        msgspec.Meta(
            description="Management engine (MEI) and telemetry nodes beside the GPU's own. Only with admin access: they allow firmware "
            "operations.",
            examples=[True],
        ),
    ] = msgspec.UNSET


class Effective(msgspec.Struct, frozen=True):
    """What holds for one request after all entries are merged."""

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
    for field, feature in LATER.items():
        if field in raw:
            raise _refused(f"field {field!r}: {feature} is not in this version of the driver; remove the field")
    try:
        return msgspec.convert(raw, GpuConfig)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None


def effective(config: Iterable[Config], request: str, *, admin: bool) -> Effective:
    """Merge the entries that apply to `request` (`name` or `name/subrequest`).

    Entries come class first, then claim, and a later one overrides an earlier one field by field. An entry applies if it names no
    request, the request, its base name, or the whole `name/subrequest`.

    Raises:
        ClaimRefused: an entry of ours that applies is malformed or asks for what the request may not have.
    """
    monitor = False
    base = request.partition("/")[0]
    for entry in config:
        if entry.opaque is None or entry.opaque.driver != DRIVER_NAME:
            continue
        if entry.requests and request not in entry.requests and base not in entry.requests:
            continue
        decoded = decode(bytes(entry.opaque.parameters))
        if decoded.monitor is not msgspec.UNSET:
            monitor = decoded.monitor
    if monitor and not admin:
        raise _refused(f"field 'monitor': request {request!r} has no adminAccess, which monitor devices need")
    return Effective(monitor)


def _refused(text: str) -> ClaimRefused:
    return ClaimRefused(f"opaque configuration for {DRIVER_NAME}: {text}"[:500], reason="InvalidConfig")


def _shown(value: object) -> str:
    return repr(value)[:60]
