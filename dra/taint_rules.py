"""DeviceTaintRules that stand for alerts: one for each device, with its reasons in an annotation.

Rules of others are never touched: ours have a label, and a name that is made of the device's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from dra.alerts import Reasons
from dra.names import DRIVER_NAME, DeviceName, bdf_of_device_name
from dra.pool import Effect

Json = dict[str, Any]

PLURAL: Final = "devicetaintrules"
VERSIONS: Final = ("v1", "v1beta2", "v1alpha3")
"""That may serve it, newest first."""
LABEL: Final = f"{DRIVER_NAME}/alert"
SELECTOR: Final = f"{LABEL}=true"
REASONS: Final = f"{DRIVER_NAME}/alert-reasons"
"""Annotation: a JSON list."""
KEY: Final = f"{DRIVER_NAME}/alert"
"""Of the taint. One for all alerts, so that tolerations can be written."""
VALUE: Final = "firing"
EFFECTS: Final = (Effect.NO_SCHEDULE, Effect.NO_EXECUTE)
ILLEGIBLE: Final = "(illegible)"
"""Stands for reasons that somebody has damaged: no alert ends it, only an administrator."""

_NAME_LENGTH: Final = 253


class Published(msgspec.Struct, frozen=True):
    """A device in a ResourceSlice of ours."""

    name: DeviceName
    card: str
    """Address of the card it is on; its own, for a card."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One of ours, as it is stored."""

    name: str
    uid: str
    version: str
    """resourceVersion."""
    node: str
    device: DeviceName
    reasons: frozenset[str]
    effect: str


class Create(msgspec.Struct, frozen=True):
    body: Json


class Change(msgspec.Struct, frozen=True):
    rule: Rule
    body: Json
    """A merge patch."""


class Delete(msgspec.Struct, frozen=True):
    rule: Rule


Write = Create | Change | Delete


def rules(objects: Iterable[Json], node: str) -> dict[DeviceName, Rule]:
    """Ours for devices of one node."""
    found = {}
    for each in objects:
        metadata, spec = each["metadata"], each.get("spec") or {}
        selector, taint = spec.get("deviceSelector") or {}, spec.get("taint") or {}
        if (metadata.get("labels") or {}).get(LABEL) != "true" or taint.get("key") != KEY:
            continue
        if selector.get("driver") != DRIVER_NAME or selector.get("pool") != node or not selector.get("device"):
            continue
        device = DeviceName(selector["device"])
        if metadata["name"] != rule_name(node, device):
            continue
        found[device] = Rule(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            version=metadata.get("resourceVersion", ""),
            node=node,
            device=device,
            reasons=_decoded((metadata.get("annotations") or {}).get(REASONS)),
            effect=taint.get("effect", ""),
        )
    return found


def current(ours: Mapping[DeviceName, Rule]) -> Reasons:
    return {device: rule.reasons for device, rule in ours.items() if rule.reasons}


def published(slices: Iterable[Json], node: str) -> list[Published]:
    """Devices of one node, from its slices in whatever version; those whose names this driver did not make are left out."""
    found = []
    for each in slices:
        spec = each.get("spec") or {}
        if spec.get("driver") != DRIVER_NAME or spec.get("nodeName") != node:
            continue
        for device in spec.get("devices") or ():
            bdf = bdf_of_device_name(device["name"])
            if bdf is None:
                continue
            attributes = (device.get("basic") or device).get("attributes") or {}
            card = (attributes.get("pfPciAddress") or attributes.get(f"{DRIVER_NAME}/pfPciAddress") or {}).get("string")
            found.append(Published(DeviceName(device["name"]), card or bdf))
    return found


def whole_cards(devices: Iterable[Published]) -> Mapping[DeviceName, tuple[DeviceName, ...]]:
    """Each device -> those that an alert about it taints: the whole card, VFs that nobody has made yet included."""
    by_card: dict[str, list[DeviceName]] = {}
    listed = list(devices)
    for each in listed:
        by_card.setdefault(each.card, []).append(each.name)
    return {each.name: tuple(by_card[each.card]) for each in listed}


def only_cards(devices: Iterable[Published]) -> Mapping[DeviceName, tuple[DeviceName, ...]]:
    """Each device -> the card's own device, or itself where that is not published."""
    listed = list(devices)
    cards = {each.card: each.name for each in listed if bdf_of_device_name(each.name) == each.card}
    return {each.name: (cards.get(each.card, each.name),) for each in listed}


def writes(ours: Mapping[DeviceName, Rule], wanted: Reasons, *, node: str, effect: Effect, owner: Json | None) -> list[Write]:
    """What makes these reasons all there is on the node, in order of device. Writing them all again after some were written is harmless.

    Args:
        owner: reference to the Node, which takes its rules with it; None where nothing new can be needed.
    """
    found: list[Write] = []
    for device in sorted({*ours, *wanted}):
        rule, reasons = ours.get(device), wanted.get(device)
        if not reasons:
            found += [Delete(rule)] if rule is not None else []
        elif rule is None:
            found.append(Create(_body(node, device, reasons, effect, owner)))
        elif rule.reasons != reasons or rule.effect != effect:
            metadata = {"resourceVersion": rule.version, "annotations": {REASONS: _encoded(reasons)}}
            found.append(Change(rule, {"metadata": metadata, "spec": {"taint": {"effect": effect.value}}}))
    return found


def rule_name(node: str, device: DeviceName) -> str:
    """`gpu-alert-0000-03-00-0-0x56c0.worker-1`; of a very long name of a node a digest stands for its end."""
    name = f"gpu-alert-{device}.{node}"
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(node.encode()).hexdigest()[:16]
    return f"{name[: _NAME_LENGTH - len(digest) - 1].rstrip('.-')}-{digest}"


def _body(node: str, device: DeviceName, reasons: frozenset[str], effect: Effect, owner: Json | None) -> Json:
    return {
        "kind": "DeviceTaintRule",
        "metadata": {
            "name": rule_name(node, device),
            "labels": {LABEL: "true"},
            "annotations": {REASONS: _encoded(reasons)},
            **({"ownerReferences": [owner]} if owner is not None else {}),
        },
        "spec": {
            "deviceSelector": {"driver": DRIVER_NAME, "pool": node, "device": device},
            "taint": {"key": KEY, "value": VALUE, "effect": effect.value},
        },
    }


def _encoded(reasons: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(reasons)).decode()


def _decoded(text: str | None) -> frozenset[str]:
    try:
        return frozenset(msgspec.json.decode(text or "", type=list[str]))
    except msgspec.DecodeError:
        return frozenset({ILLEGIBLE})
