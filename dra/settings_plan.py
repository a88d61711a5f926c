"""From the settings in force to the ones wanted: what is applied, what needs a restart, what is refused because somebody uses it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from dra.devices import Gpu
from dra.names import ClaimUid, DeviceName
from dra.settings import NodePluginConfiguration, selects

S = TypeVar("S", bound=msgspec.Struct)

NEEDS_RESTART: Final = {
    "deviceEvents.source": "the event source is opened once, at start",
    "probes.port": "the port is bound once, at start",
    "probes.address": "the port is bound once, at start",
    "health.telemetry.claimLabels": "metrics have the labels that they had at start",
}
"""Fields that are read once, and why."""


class Verdict(enum.StrEnum):
    APPLY = "apply"
    REFUSED = "refused"
    RESTART = "restart"


class Entry(msgspec.Struct, frozen=True):
    """One field that differs."""

    field: str
    old: Any
    new: Any
    verdict: Verdict
    why: str = ""


class Plan(msgspec.Struct, Generic[S], frozen=True):
    entries: tuple[Entry, ...]
    effective: S
    """What is in force after the safe parts are applied."""


def plan(
    current: NodePluginConfiguration,
    wanted: NodePluginConfiguration,
    *,
    in_use: Mapping[DeviceName, Collection[ClaimUid]],
    gpus: Collection[Gpu],
) -> Plan[NodePluginConfiguration]:
    """What a new file means for a node. No plan un-selects a GPU that a claim holds.

    Args:
        in_use: devices held by claims.
        gpus: what is known of the machine's GPUs, to tell what selectors mean.
    """

    def refused(field: str) -> str:
        return _taken_away(current, wanted, in_use, gpus) if field.startswith("publish.") else ""

    return compare(current, wanted, needs_restart=NEEDS_RESTART, refused=refused)


def compare(current: S, wanted: S, *, needs_restart: Mapping[str, str], refused: Callable[[str], str] = lambda _field: "") -> Plan[S]:
    """Compare field by field.

    Args:
        needs_restart: fields that are read once, by dotted name, and why.
        refused: why a field must not change, empty if it may.
    """
    entries: list[Entry] = []
    old, new = _flat(current), _flat(wanted)
    effective = msgspec.to_builtins(current)
    for field in new:
        if old[field] == new[field]:
            continue
        verdict, why = Verdict.APPLY, ""
        if field in needs_restart:
            verdict, why = Verdict.RESTART, needs_restart[field]
        elif why := refused(field):
            verdict = Verdict.REFUSED
        entries.append(Entry(field, old[field], new[field], verdict, why))
        if verdict is Verdict.APPLY:
            _set(effective, field, new[field])
    return Plan(tuple(entries), msgspec.convert(effective, type(current)))


def render(made: Plan[Any]) -> list[str]:
    """One line for each field that differs."""
    if not made.entries:
        return ["nothing changes"]
    return [
        f"{entry.verdict} {entry.field}: {_short(entry.old)} -> {_short(entry.new)}" + (f" ({entry.why})" if entry.why else "")
        for entry in made.entries
    ]


def _taken_away(
    current: NodePluginConfiguration,
    wanted: NodePluginConfiguration,
    in_use: Mapping[DeviceName, Collection[ClaimUid]],
    gpus: Collection[Gpu],
) -> str:
    """Which GPUs in use the wanted selection would withdraw, as a reason; empty if none. `include` and `exclude` count together."""
    lost = [
        f"{gpu.name} is held by claim {', '.join(sorted(in_use[gpu.name]))}"
        for gpu in gpus
        if in_use.get(gpu.name) and selects(current.publish, gpu) and not selects(wanted.publish, gpu)
    ]
    return "; ".join(lost)


def _flat(settings: msgspec.Struct) -> dict[str, Any]:
    """Dotted field -> value; lists are values."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        for name, below in value.items():
            if isinstance(below, dict):
                walk(f"{prefix}{name}.", below)
            else:
                found[prefix + name] = below

    walk("", msgspec.to_builtins(settings))
    return found


def _set(document: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    for name in path:
        document = document[name]
    document[last] = value


def _short(value: object) -> str:
    text = msgspec.json.encode(_pruned(value)).decode()
    return text if len(text) <= 120 else text[:117] + "..."


def _pruned(value: object) -> object:
    """Selectors without the fields they do not use, however deep they lie."""
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    if isinstance(value, dict):
        return {name: _pruned(below) for name, below in value.items() if below is not None}
    return value
