"""Events (core v1): sentences that `kubectl describe` shows beneath an object."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

MESSAGE_BYTES: Final = 1024
"""Longer messages are refused (validation of core/v1 Events)."""


class Weight(enum.StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


class Regarding(msgspec.Struct, frozen=True):
    """The object a sentence is about."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


def body(
    about: Regarding, weight: Weight, reason: str, message: str, *, component: str, node: str, at: str, generate_name: str
) -> dict[str, Any]:
    """A new Event, seen once, at the RFC 3339 time `at`."""
    reference = {"kind": about.kind, "name": about.name, "apiVersion": about.api_version, "namespace": about.namespace, "uid": about.uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": generate_name, "namespace": namespace_of(about)},
        "involvedObject": {key: value for key, value in reference.items() if value},
        "type": weight.value,
        "reason": reason,
        "message": fitting(message),
        "source": {"component": component, "host": node},
        "reportingComponent": component,
        "reportingInstance": node,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def namespace_of(about: Regarding) -> str:
    """Where the Event lives: with its object, and for cluster-wide objects in `default`."""
    return about.namespace or "default"


def fitting(message: str) -> str:
    """The message within 1 KiB, cut between characters."""
    return message.encode(errors="replace")[:MESSAGE_BYTES].decode(errors="ignore")
