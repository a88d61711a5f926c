"""The node plugin's settings file, kind NodePluginConfiguration of gpu.intel.com/v1alpha1, and how such files are decoded: strictly.

Flags say what must be known before this file is read; everything else is here, and without a file the defaults are right for most.
A file that is wrong is refused whole, with the place in it and what is allowed there.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from dra import sharing_settings, sriov_settings
from dra.devices import Gpu
from dra.durations import Duration, seconds
from dra.errors import DriverError
from dra.health import health_settings
from dra.health.health_settings import Health
from dra.names import API_VERSION, DRIVER_NAME
from dra.selectors import Selector, matches, selector_fault
from dra.sharing_settings import Sharing
from dra.sriov_settings import Sriov

S = TypeVar("S", bound=msgspec.Struct)

NODE_KIND: Final = "NodePluginConfiguration"
MAX_BYTES: Final = 256 * 1024
"""A hundred times the longest sensible file; what is larger is a mistake in a path."""

_LONGEST_LINE: Final = 300
"""Characters of a message that quotes the file; it goes into an Event, too, which holds 1024."""


class SettingsInvalid(DriverError):
    """The administrator's move: the file cannot be used; whatever was in force stays so."""

    reason = "SettingsInvalid"


class DeviceEvents(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    source: Annotated[
        Literal["kernel", "udev"],
        msgspec.Meta(description="Where uevents come from: `kernel` works in an ordinary pod; `udev` needs udevd and hostNetwork."),
    ] = "kernel"
    rescan_period: Annotated[
        Duration,
        msgspec.Meta(description="How often to read the machine without an event: uevents can be lost. 5s to 24h.", examples=["60s"]),
    ] = "60s"


class Logging(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], msgspec.Meta(description="Least severity that is written.", examples=["debug"])
    ] = "info"


class Probes(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="TCP port of /healthz, /readyz and /metrics; 0 switches them off.", examples=[9176])
    ] = 9176
    address: Annotated[
        str, msgspec.Meta(description="IP address to listen on; empty means all, IPv4 and IPv6.", examples=["127.0.0.1"])
    ] = ""


class Publish(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    include: Annotated[
        tuple[Selector, ...],
        msgspec.Meta(description="GPUs to offer, if any selector matches; empty means all.", examples=[[{"integrated": False}]]),
    ] = ()
    exclude: Annotated[
        tuple[Selector, ...], msgspec.Meta(description="GPUs not to offer, whatever `include` says.", examples=[[{"bdf": "0000:00:02.0"}]])
    ] = ()


class NodePluginConfiguration(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    api_version: Literal["gpu.intel.com/v1alpha1"] = "gpu.intel.com/v1alpha1"
    kind: Literal["NodePluginConfiguration"] = "NodePluginConfiguration"
    decommission: Annotated[
        bool,
        msgspec.Meta(
            description="Get the node ready for the driver's removal: nothing is offered and no new claim prepared, cards that nobody "
            "holds become what they were, and when nothing is held any more the driver's files and then its ResourceSlices go "
            "([uninstalling.md](../uninstalling.md)). Reversible.",
            examples=[True],
        ),
    ] = False
    device_events: DeviceEvents = DeviceEvents()
    grace_period: Annotated[
        Duration,
        msgspec.Meta(
            description="How long claims in work are waited for when stopping. 0s to 10m; keep it below the pod's.", examples=["20s"]
        ),
    ] = "20s"
    reconcile_period: Annotated[
        Duration,
        msgspec.Meta(description="How often journal, CDI files and hardware are compared without need. 10s to 24h.", examples=["10m"]),
    ] = "10m"
    logging: Logging = Logging()
    probes: Probes = Probes()
    publish: Publish = Publish()
    sriov: Sriov = Sriov()
    sharing: Annotated[
        tuple[Sharing, ...],
        msgspec.Meta(
            description="Which whole GPUs several claims may hold at once; the first entry that selects a GPU holds for it. Cards that are "
            "cut into VFs are not shared.",
            examples=[[{"select": {"integrated": True}, "policy": "shares", "shares": 4}]],
        ),
    ] = ()
    health: Health = Health()


BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "deviceEvents.rescanPeriod": (5, 86400),  # a scan of 64 GPUs costs 0.1 s of CPU
    "gracePeriod": (0, 600),  # the kubelet kills a pod after its own grace anyway
    "reconcilePeriod": (10, 86400),
    **health_settings.BOUNDS,
}
"""Seconds allowed for each duration."""


def decode_node(document: object, where: str) -> NodePluginConfiguration:
    """Check a parsed settings file of the node plugin.

    Args:
        document: what the YAML says, in plain Python values.
        where: the file, for messages.

    Raises:
        SettingsInvalid: one line that names the file, the field and what is allowed.
    """
    settings = decode(document, where, NodePluginConfiguration, BOUNDS)
    for group in ("include", "exclude"):
        for index, selector in enumerate(getattr(settings.publish, group)):
            if (fault := selector_fault(selector)) is not None:
                raise SettingsInvalid(f"{where}: {fault} - at `$.publish.{group}[{index}]`")
    all_faults = (sriov_settings.faults(settings.sriov), sharing_settings.faults(settings.sharing), health_settings.faults(settings.health))
    for faults in all_faults:
        if faults:
            raise SettingsInvalid(f"{where}: {faults[0]}")
    return settings


def decode(document: object, where: str, kind: type[S], bounds: Mapping[str, tuple[float, float]]) -> S:
    """Check what all kinds have in common.

    Args:
        kind: has `api_version`, `kind` and `probes`.
        bounds: seconds allowed for each duration, by dotted name.

    Raises:
        SettingsInvalid: as above.
    """
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{where}: a settings file is a mapping with apiVersion and kind")
    if document.get("apiVersion") != API_VERSION or document.get("kind") != kind.__name__:
        found = f"{document.get('apiVersion')!r} {document.get('kind')!r}"[:120]
        raise SettingsInvalid(f"{where}: apiVersion and kind are {found}, want {API_VERSION} {kind.__name__}")
    try:
        settings = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"{where}: {_hinted(str(error), kind)}") from None
    for field, (least, most) in bounds.items():
        value = _field(settings, field)
        try:
            given = seconds(value)
        except ValueError as error:
            raise SettingsInvalid(f"{where}: {error} - at `$.{field}`") from None
        if not least <= given <= most:
            raise SettingsInvalid(f"{where}: {value} is out of range, {least:g}s to {most:g}s are allowed - at `$.{field}`")
    check_address(_field(settings, "probes.address"), where, "probes.address")
    return settings


def check_address(text: str, where: str, field: str) -> None:
    """
    Raises:
        SettingsInvalid: it is neither empty nor an IP address.
    """
    try:
        ipaddress.ip_address(text or "::")
    except ValueError:
        raise SettingsInvalid(f"{where}: {text[:60]!r} is not an IP address - at `$.{field}`") from None


def selects(publish: Publish, gpu: Gpu) -> bool:
    """Whether the settings want this GPU offered."""
    included = not publish.include or any(matches(selector, gpu) for selector in publish.include)
    return included and not any(matches(selector, gpu) for selector in publish.exclude)


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON schema of a kind, for editors and the reference documentation."""
    schema = msgspec.json.schema(kind)
    schema["$defs"][kind.__name__]["required"] = ["apiVersion", "kind"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"{kind.__name__} ({DRIVER_NAME})"} | schema


def _field(settings: msgspec.Struct, path: str) -> str:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name))
    return str(value)


def _hinted(text: str, root: type[msgspec.Struct]) -> str:
    """msgspec's message on one line of bearable length, with what is allowed in that place."""
    if (match := re.search(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?", text)) is not None:
        known = sorted(field.encode_name for field in msgspec.structs.fields(_kind_at(root, match[2] or "")))
        close = difflib.get_close_matches(match[1], known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; known are {', '.join(known)}"
    elif (match := re.search(r"Invalid enum value .* - at `\$\.?(?:([^`]*)\.)?([^`.]*)`", text, re.DOTALL)) is not None:
        allowed = next(field.type for field in msgspec.structs.fields(_kind_at(root, match[1] or "")) if field.encode_name == match[2])
        hint = f"; allowed are {', '.join(typing.get_args(typing.get_args(allowed)[0]))}"
    else:
        hint = ""
    line = " ".join(text.split())
    return (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}...") + hint


def _kind_at(root: type[msgspec.Struct], path: str) -> Any:
    """The struct at a dotted path of camelCase names, list indexes left out."""
    kind: Any = root
    for name in re.sub(r"\[[^]]*\]", "", path).split("."):
        if name:
            kind = _struct_in(next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == name))
    return kind


def _struct_in(annotation: Any) -> Any:
    """The struct inside `Annotated`, tuples and unions."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    found = (_struct_in(part) for part in typing.get_args(annotation))
    return next((struct for struct in found if struct is not None), None)
