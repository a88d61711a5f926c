"""Whether the driver is about to leave a node (decommission in its settings), by what its plugin said last."""

from __future__ import annotations

from dra import decommissioning
from dra.explaining import happenings
from dra.explaining.cluster import Cluster


def leaving(cluster: Cluster, node: str) -> str:
    """The plugin's sentence; empty if it said nothing of it, or that it is called off. API servers keep Events for an hour."""
    said = [event for event in cluster.events if _about(event) == ("Node", node) and event.get("reason") in decommissioning.REASONS]
    newest = max(said, key=happenings.when, default=None)
    if newest is None or newest["reason"] == decommissioning.BACK_IN_SERVICE:
        return ""
    return happenings.message(newest)


def _about(event: dict[str, object]) -> tuple[object, object]:
    """A Node is told by its name: kubelets and plugins do not know its UID when they begin to speak of it."""
    about = event.get("involvedObject")
    return (about.get("kind"), about.get("name")) if isinstance(about, dict) else (None, None)
