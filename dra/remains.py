"""What is left of the driver in a cluster while it is being removed, node by node, and in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.cluster_watch import COMPONENT, COMPONENT_LABEL
from dra.kube import classic
from dra.kube.watched import PluginPod, WatchedClaim
from dra.names import DRIVER_NAME

SHOWN: Final = 6
"""Of claims on a node, and of pods of a claim, in one line."""

BY_HAND: Final = "see `On a dead node, by hand` in docs/uninstalling.md"


class HeldClaim(msgspec.Struct, frozen=True, order=True):
    """A claim that the driver's devices are allocated to."""

    namespace: str
    name: str
    nodes: tuple[str, ...]
    """Empty if it does not say."""
    users: tuple[str, ...]
    """Names of the pods it is reserved for."""

    def __str__(self) -> str:
        more = f" and {len(self.users) - SHOWN} more" if len(self.users) > SHOWN else ""
        users = f"reserved for {', '.join(self.users[:SHOWN])}{more}" if self.users else "reserved for nobody"
        return f"claim {self.namespace}/{self.name} ({users})"


def claims(found: Iterable[WatchedClaim]) -> list[HeldClaim]:
    """Those with devices of ours, with structured DRA."""
    held = []
    for one in found:
        if one.status is None or one.status.allocation is None:
            continue
        pools = sorted({result.pool for result in one.status.allocation.devices.results or () if result.driver == DRIVER_NAME})
        if pools:
            users = tuple(consumer.name for consumer in one.status.reserved_for or ())
            held.append(HeldClaim(one.metadata.namespace, one.metadata.name, tuple(pools), users))
    return sorted(held)


def classic_claims(found: Iterable[classic.ResourceClaim]) -> list[HeldClaim]:
    """The same with classic DRA."""
    held = []
    for one in found:
        handles = one.status.allocation.resource_handles or () if one.status.allocation is not None else ()
        ours = one.status.driver_name == CLASSIC_DRIVER_NAME or any(each.driver_name == CLASSIC_DRIVER_NAME for each in handles)
        if one.status.allocation is not None and ours:
            users = tuple(consumer.name for consumer in one.status.reserved_for or ())
            held.append(HeldClaim(one.metadata.namespace, one.metadata.name, (one.node,) if one.node else (), users))
    return sorted(held)


def ready_nodes(pods: Iterable[PluginPod]) -> frozenset[str]:
    """Nodes with a plugin that can act."""
    return frozenset(pod.spec.node_name for pod in pods if _is_plugin(pod) and pod.is_ready)


def unready_nodes(pods: Iterable[PluginPod]) -> frozenset[str]:
    """Nodes with a plugin, of which none can act."""
    found = list(pods)
    meant = {
        pod.spec.node_name for pod in found if _is_plugin(pod) and pod.spec.node_name and pod.status.phase not in ("Succeeded", "Failed")
    }
    return frozenset(meant - ready_nodes(found))


def unable(node: str, nodes: Mapping[str, object], ready: frozenset[str]) -> str | None:
    """Why a node cannot be cleaned by its plugin; None if it can."""
    if node not in nodes:
        return "there is no such Node any more"
    return None if node in ready else "no plugin is Ready on it"


def line(node: str, devices: int, held: Sequence[HeldClaim], why_unable: str | None) -> str:
    """How far one node is."""
    if why_unable is not None:
        return f"{node}: {why_unable}"
    if devices:
        return f"{node}: {devices} devices are still offered: the plugin has not read its settings yet"
    mine = [str(one) for one in held if node in one.nodes]
    if not mine:
        return f"{node}: draining; what its plugin waits for is in Events of the Node (VFs, files, claims the API server has forgotten)"
    more = f" and {len(mine) - SHOWN} more" if len(mine) > SHOWN else ""
    return f"{node}: held by {', '.join(mine[:SHOWN])}{more}"


def _is_plugin(pod: PluginPod) -> bool:
    return (pod.metadata.labels or {}).get(COMPONENT_LABEL) == COMPONENT and pod.metadata.deletion_timestamp is None
