"""The controller's settings file, kind ControllerConfiguration of gpu.intel.com/v1alpha1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from dra import alerts, settings_plan
from dra.alerts import Filters
from dra.classic.placement import Policy
from dra.durations import Duration
from dra.settings import Logging, SettingsInvalid, check_address, decode
from dra.settings_plan import Plan


class ControllerProbes(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="TCP port of /healthz, /readyz and /metrics; 0 switches them off.", examples=[9177])
    ] = 9177
    address: Annotated[
        str, msgspec.Meta(description="IP address to listen on; empty means all, IPv4 and IPv6.", examples=["127.0.0.1"])
    ] = ""


class Allocation(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    policy: Annotated[
        Literal["none", "balanced", "packed"],
        msgspec.Meta(description="Which of a node's GPUs that fit is taken: the first, the one with most left, the one with least left."),
    ] = "none"
    resource: Annotated[Literal["memory", "millicores"], msgspec.Meta(description="Of what most or least is left, for `policy`.")] = (
        "memory"
    )
    vf_memory: Annotated[
        dict[str, Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]],
        msgspec.Meta(
            description="MiB of local memory, by PCI id, of VFs for which no claim asks a size, spare ones included; the profile that is "
            "nearest. Without an entry the model's default holds.",
            examples=[{"0x56c0": 4096}],
        ),
    ] = {}


class ApiRate(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    per_second: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Requests to the API server, on average.", examples=[200])] = 500
    burst: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Requests that may come at once.", examples=[400])] = 1000


class Alerts(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="TCP port for Alertmanager's notifications; 0 takes none.", examples=[9178])
    ] = 0
    address: Annotated[str, msgspec.Meta(description="IP address to listen on; empty means all, IPv4 and IPv6.", examples=["10.0.0.7"])] = (
        ""
    )
    certificate: Annotated[
        str, msgspec.Meta(description="File with a certificate and its chain, for TLS; empty means none.", examples=["/tls/tls.crt"])
    ] = ""
    key: Annotated[str, msgspec.Meta(description="File with the certificate's key.", examples=["/tls/tls.key"])] = ""
    token_file: Annotated[
        str,
        msgspec.Meta(description="File with the bearer token that callers have to show; empty asks for none.", examples=["/alerts/token"]),
    ] = ""
    groups: Annotated[
        str,
        msgspec.Meta(
            description="Only notifications whose groups have these labels: `label=value,value:label=value`, or names of labels with "
            "`values` for all of them.",
            examples=["alertgroup"],
        ),
    ] = ""
    values: Annotated[str, msgspec.Meta(description="Values of the labels in `groups`.", examples=["gpu,thermal"])] = ""
    names: Annotated[
        str,
        msgspec.Meta(description="Only alerts of these names, separated by commas; empty means all.", examples=["GpuTooHot,GpuEccErrors"]),
    ] = ""
    effect: Annotated[
        Literal["NoSchedule", "NoExecute"],
        msgspec.Meta(description="Of DeviceTaintRules: keep new claims away, or evict pods as well. Classic DRA evicts nobody."),
    ] = "NoSchedule"


class Webhook(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="TCP port of the admission webhook, HTTPS; 0 serves none.", examples=[9443])
    ] = 0
    address: Annotated[str, msgspec.Meta(description="IP address to listen on; empty means all, IPv4 and IPv6.", examples=["10.0.0.7"])] = (
        ""
    )
    certificate: Annotated[
        str, msgspec.Meta(description="File with the certificate and its chain; read again when it changes.", examples=["/tls/tls.crt"])
    ] = "/tls/tls.crt"
    key: Annotated[str, msgspec.Meta(description="File with the certificate's key.", examples=["/tls/tls.key"])] = "/tls/tls.key"


class ControllerConfiguration(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    api_version: Literal["gpu.intel.com/v1alpha1"] = "gpu.intel.com/v1alpha1"
    kind: Literal["ControllerConfiguration"] = "ControllerConfiguration"
    allocation: Allocation = Allocation()
    workers: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=256, description="Claims and pods worked on at the same time; more than 8 wait for connections.", examples=[16]
        ),
    ] = 8
    api_rate: ApiRate = ApiRate()
    logging: Logging = Logging()
    probes: ControllerProbes = ControllerProbes()
    alerts: Alerts = Alerts()
    webhook: Webhook = Webhook()
    watch_grace: Annotated[
        Duration,
        msgspec.Meta(
            description="How long slices may be missing, or a dead node hold a claim, before that is told (structured DRA). 1s to 24h.",
            examples=["2m"],
        ),
    ] = "60s"


BOUNDS: Final[Mapping[str, tuple[float, float]]] = {"watchGrace": (1, 86400)}
"""Seconds allowed for each duration."""

_BOUND: Final = "the port is bound once, at start"
NEEDS_RESTART: Final = {
    **{f"{service}.{field}": _BOUND for service in ("alerts", "webhook") for field in ("port", "address", "certificate", "key")},
    "alerts.tokenFile": _BOUND,
    "watchGrace": "the watch is started with it",
    "workers": "the workers are started once, at start",
    "probes.port": _BOUND,
    "probes.address": _BOUND,
}
"""Fields that are read once, and why."""


def decode_controller(document: object, where: str) -> ControllerConfiguration:
    """Check a parsed settings file of the controller.

    Raises:
        SettingsInvalid: as `dra.settings.decode`.
    """
    found = decode(document, where, ControllerConfiguration, BOUNDS)
    for model in found.allocation.vf_memory:
        if not _is_pci_id(model):
            raise SettingsInvalid(f"{where}: {model[:60]!r} is not a PCI id such as 0x56c0 - at `$.allocation.vfMemory`")
    for field, address in (("alerts.address", found.alerts.address), ("webhook.address", found.webhook.address)):
        check_address(address, where, field)
    if bool(found.alerts.certificate) != bool(found.alerts.key):
        raise SettingsInvalid(f"{where}: a certificate and its key belong together - at `$.alerts`")
    if found.webhook.port and not (found.webhook.certificate and found.webhook.key):
        raise SettingsInvalid(f"{where}: the API server calls webhooks by HTTPS only: name certificate and key - at `$.webhook`")
    try:
        filters_of(found)
    except ValueError as error:
        raise SettingsInvalid(f"{where}: {error} - at `$.alerts`") from None
    return found


def filters_of(settings: ControllerConfiguration) -> Filters:
    """Which notifications count.

    Raises:
        ValueError: the settings were not checked.
    """
    of = settings.alerts
    return alerts.filters(groups=of.groups, values=of.values, alerts=of.names)


def plan(current: ControllerConfiguration, wanted: ControllerConfiguration) -> Plan[ControllerConfiguration]:
    """What a new file changes: nothing of it takes anything away from a claim."""
    return settings_plan.compare(current, wanted, needs_restart=NEEDS_RESTART)


def policy_of(settings: ControllerConfiguration) -> Policy:
    of: Any = settings.allocation
    return Policy(order=of.policy, resource=of.resource, vf_memory=of.vf_memory)


def _is_pci_id(text: str) -> bool:
    return len(text) == 6 and text.startswith("0x") and all(digit in "0123456789abcdef" for digit in text[2:])
