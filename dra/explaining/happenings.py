"""Events about an object: what the cluster itself said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dra.explaining.cluster import Cluster, Json

NOT_PREPARED: Final = ("FailedPrepareDynamicResources",)
"""Of the kubelet: the plugin's prepare failed."""
_MOST: Final = 5


def warnings(cluster: Cluster, objects: Iterable[Json]) -> list[Json]:
    """About any of them, newest first."""
    found = [event for body in objects for event in cluster.events_of(body) if event.get("type") == "Warning"]
    return sorted(found, key=when, reverse=True)


def when(event: Json) -> str:
    """RFC 3339."""
    series = event.get("series") or {}
    for said in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp")):
        if said:
            return str(said)
    return str((event.get("metadata") or {}).get("creationTimestamp") or "")


def sentences(events: Sequence[Json]) -> tuple[str, ...]:
    """The newest, each said once."""
    texts = (f"{event.get('reason', '')}: {message(event)}" for event in events)
    return tuple(dict.fromkeys(texts))[:_MOST]


def message(event: Json) -> str:
    return " ".join(str(event.get("message") or event.get("note") or "").split())


def last(events: Sequence[Json], reasons: Sequence[str]) -> Json | None:
    """The newest with one of the reasons."""
    return next((event for event in events if event.get("reason") in reasons), None)
