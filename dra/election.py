"""Leader election by a Lease (coordination.k8s.io/v1), the decisions without the clock and the calls; client-go's rules.

Whether another's Lease has run out is judged by how long it was not seen to change, never by the times in it: clocks differ.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

from dra.kube.classic import Lease

DURATION_SECONDS: Final = 12.0
"""How long others leave a Lease alone that is not renewed. client-go takes 15; with that a pod that came when the leader died was seen
to wait for up to 25 s on a busy machine, where 20 are promised."""
RENEW_WITHIN_SECONDS: Final = 8.0
"""A leader that could not renew for so long stops; the rest until DURATION_SECONDS is for what it has under way."""
RETRY_SECONDS: Final = 2.0
"""Between two looks at the Lease."""


class Seen(msgspec.Struct, frozen=True):
    """A Lease and since when it looks so, on the monotonic clock of whoever looks."""

    lease: Lease
    since: float


def looked(before: Seen | None, lease: Lease, now: float) -> Seen:
    """What is seen, after another look."""
    if before is not None and before.lease.spec == lease.spec and before.lease.metadata.uid == lease.metadata.uid:
        return Seen(lease, before.since)
    return Seen(lease, now)


def may_take(seen: Seen, me: str, now: float) -> bool:
    """Whether the Lease is free, ours already, or left to run out by its holder."""
    holder = seen.lease.spec.holder_identity
    if not holder or holder == me:
        return True
    return now >= seen.since + (seen.lease.spec.lease_duration_seconds or DURATION_SECONDS)


def new(name: str, namespace: str, me: str, at: float) -> dict[str, Any]:
    """A Lease that nobody had before. `at` is in seconds since the epoch."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**_renewed(me, at), "acquireTime": timestamp(at), "leaseTransitions": 0},
    }


def taken(lease: Lease, me: str, at: float) -> dict[str, Any]:
    """Merge patch that renews or takes over; refused if somebody else was quicker."""
    spec = _renewed(me, at)
    if lease.spec.holder_identity != me:
        spec |= {"acquireTime": timestamp(at), "leaseTransitions": (lease.spec.lease_transitions or 0) + 1}
    return _only_if_unchanged(lease) | {"spec": spec}


def given_up(lease: Lease, at: float) -> dict[str, Any]:
    """Merge patch that lets the next one in at once."""
    return _only_if_unchanged(lease) | {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": timestamp(at)}}


def timestamp(at: float) -> str:
    """Kubernetes' MicroTime."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _renewed(me: str, at: float) -> dict[str, Any]:
    return {"holderIdentity": me, "leaseDurationSeconds": int(DURATION_SECONDS), "renewTime": timestamp(at)}


def _only_if_unchanged(lease: Lease) -> dict[str, Any]:
    return {"metadata": {"uid": lease.metadata.uid, "resourceVersion": lease.metadata.resource_version}}
