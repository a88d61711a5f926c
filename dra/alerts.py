"""Alertmanager's notifications about GPUs: which alerts of them are for us, and which reasons devices are tainted for after them.

A device has a set of reasons, each the name of an alert; it is tainted while there is one. An alert about a VF, or about its card, taints
the card: what is wrong with one of them is seldom wrong with it alone. So that the alerts of two VFs of one name can end one after the
other, a reason that comes from another function of the card says from which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dra.names import Bdf, DeviceName, bdf_of_device_name, device_name, is_bdf

PATH: Final = "/alertmanager/api/v1/alerts"
"""Where the original driver's receiver was, so that Alertmanager's configuration can stay."""
BODY_BYTES: Final = 1 << 20
NAME_LENGTH: Final = 200
"""Of an alert; longer ones would not be read in a list of reasons."""

_FULL_BDF: Final = 10
"""Shorter addresses lack the domain, as exporters of metrics write them."""
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NODE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PCI_ID: Final = re.compile(r"(?:0x)?([0-9a-f]{4})")
_SHOWN: Final = 60

Reasons = Mapping[DeviceName, frozenset[str]]
"""Why devices of one node are tainted."""


class Malformed(Exception):
    """The notification cannot be used as a whole."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What one alert says of one device."""

    name: str
    firing: bool
    """False: resolved."""
    node: str
    bdf: Bdf
    pci_id: str
    """`0x56c0`."""

    @property
    def device(self) -> DeviceName:
        return device_name(self.bdf, self.pci_id)


class Filters(msgspec.Struct, frozen=True):
    """Which notifications and alerts are meant for us; empty ones let everything pass."""

    groups: Mapping[str, frozenset[str]] = {}
    """Label of a notification's group -> values; every one must fit."""
    names: frozenset[str] = frozenset()
    """Of alerts."""


class Notification(msgspec.Struct, frozen=True):
    alerts: tuple[Alert, ...]
    """One for each name and device: of those that say both, the one that fires."""
    ignored: tuple[str, ...]
    """Why others were left out, for people."""


class _Alert(msgspec.Struct):
    status: str = ""
    labels: dict[str, str] | None = None


class _Notification(msgspec.Struct, rename="camel"):
    alerts: list[_Alert]
    group_labels: dict[str, str] | None = None


def filters(*, groups: str = "", values: str = "", alerts: str = "") -> Filters:
    """The original's flags: `groups` is `label=value,value:label=value` (v0.4.0), or `label,label` with `values` for all of them (v0.3.0);
    `alerts` are names.

    Raises:
        ValueError: they make no sense.
    """
    made: dict[str, frozenset[str]] = {}
    if "=" in groups or ":" in groups:
        if values:
            raise ValueError("values for all labels, and labels with values of their own: give one of them")
        pairs = [(label, given) for label, _, given in (spec.partition("=") for spec in groups.split(":"))]
    else:
        if bool(groups) != bool(values):
            raise ValueError("labels of groups and their values belong together: give both or none")
        pairs = [(label, values) for label in groups.split(",")] if groups else []
    for label, given in pairs:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label[:_SHOWN]!r} is not the name of a label")
        if label in made:
            raise ValueError(f"label {label} is given twice")
        made[label] = _words(given, f"values of label {label}")
    return Filters(made, _words(alerts, "names of alerts") if alerts else frozenset())


def parse(body: bytes, wanted: Filters) -> Notification:
    """Read a notification (an object with `alerts`) or a bare array of alerts.

    Raises:
        Malformed: it is neither, or empty, or its group is filtered out.
    """
    try:
        raw = msgspec.json.decode(body)
        found = msgspec.convert(raw if isinstance(raw, dict) else {"alerts": raw}, _Notification)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError
        raise Malformed(f"neither a notification nor a list of alerts: {error}") from None
    if not found.alerts:
        raise Malformed("there are no alerts in it")
    labels = found.group_labels or {}
    for label, values in wanted.groups.items():
        if labels.get(label) not in values:
            raise Malformed(f"filtered out: label {label} of its group is {_shown(labels.get(label, ''))}")
    kept: dict[tuple[str, str, DeviceName], Alert] = {}
    ignored = []
    for index, each in enumerate(found.alerts):
        alert = _alert(each, wanted.names)
        if isinstance(alert, str):
            ignored.append(f"alert {index} ({_shown((each.labels or {}).get('alertname', ''))}): {alert}")
            continue
        key = (alert.name, alert.node, alert.device)
        if key not in kept or alert.firing:
            kept[key] = alert
    return Notification(tuple(kept.values()), tuple(ignored))


def after(now: Reasons, alerts: Iterable[Alert], touched: Mapping[DeviceName, Sequence[DeviceName]]) -> tuple[Reasons, tuple[str, ...]]:
    """The reasons after these alerts, all of one node, and a word about each that was ignored.

    Args:
        touched: the devices that are there -> those to be tainted for them. An alert that is resolved needs none of it: what it had
            tainted is healed even when the device has gone.
    """
    reasons = {device: set(given) for device, given in now.items()}
    ignored = []
    for alert in alerts:
        if not alert.firing:
            for device, given in reasons.items():
                given.discard(_reason(alert, device))
        elif alert.device in touched:
            for device in touched[alert.device]:
                reasons.setdefault(device, set()).add(_reason(alert, device))
        else:
            ignored.append(f"{alert.name}: node {alert.node} has no device {alert.device}")
    return {device: frozenset(given) for device, given in reasons.items() if given}, tuple(ignored)


def _reason(alert: Alert, device: DeviceName) -> str:
    return alert.name if bdf_of_device_name(device) == alert.bdf else f"{alert.name}/{alert.bdf}"


def _alert(found: _Alert, names: frozenset[str]) -> Alert | str:
    """The alert, or why it is none of ours."""
    labels = found.labels or {}
    for label in ("alertname", "node", "pci_bdf", "pci_dev"):
        if not labels.get(label):
            return f"it has no label {label}"
    name, node = labels["alertname"], labels["node"]
    bdf, pci_id = labels["pci_bdf"].lower(), _PCI_ID.fullmatch(labels["pci_dev"].lower())
    bdf = f"0000:{bdf}" if len(bdf) < _FULL_BDF else bdf
    if names and name not in names:
        return "not one of the names that are listened to"
    if len(name) > NAME_LENGTH or not name.isprintable():
        return f"label alertname is longer than {NAME_LENGTH} characters, or not printable"
    if not _NODE.fullmatch(node):
        return f"label node is {_shown(node)}, no name of a node"
    if not is_bdf(bdf):
        return f"label pci_bdf is {_shown(labels['pci_bdf'])}, no PCI address"
    if pci_id is None:
        return f"label pci_dev is {_shown(labels['pci_dev'])}, no PCI id such as 0x56c0"
    if found.status not in ("firing", "resolved"):
        return f"its status is {_shown(found.status)}, neither firing nor resolved"
    return Alert(name=name, firing=found.status == "firing", node=node, bdf=Bdf(bdf), pci_id=f"0x{pci_id[1]}")


def _words(text: str, what: str) -> frozenset[str]:
    words = text.split(",")
    if "" in words:
        raise ValueError(f"{what}: an empty one in {text[:_SHOWN]!r}")
    return frozenset(words)


def _shown(text: str) -> str:
    return repr(text[:_SHOWN])
