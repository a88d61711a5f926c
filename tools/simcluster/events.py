"""Events (core v1) that the control plane itself writes."""

from __future__ import annotations

from typing import Final

from tools.simcluster.kinds import EVENT, Json
from tools.simcluster.registry import Registry

MESSAGE: Final = 1024
"""Longer ones the kubelet's recorder cuts."""


def say(
    registry: Registry, about: Json, type_: str, reason: str, message: str, component: str, *, kind: str = "Pod", once: bool = False
) -> None:
    """Write an event, or count the same one up; with `once` leave that alone, for those who look again after every write."""
    metadata, now = about["metadata"], registry.timestamp()
    namespace, message = metadata.get("namespace", "default"), message[:MESSAGE]
    same = (metadata["uid"], reason, message)
    if (old := registry.store.get(EVENT, namespace, registry.said.get(same, ""))) is not None:
        if not once:
            registry.amend(EVENT, old, lambda body: body.update(count=body.get("count", 1) + 1, lastTimestamp=now))
        return
    event = registry.create(
        EVENT,
        {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": kind,
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        },
        namespace,
    )
    registry.said[same] = event["metadata"]["name"]
