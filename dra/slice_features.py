"""What an API server drops from slices without a word while a feature gate is off: how to find that out, and what to publish then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dra.kube.event_reasons import Reason
from dra.pool import Device, Effect, Pool
from dra.slice_contents import DroppedField
from dra.slices import SliceApi


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """Something of slices that is kept or dropped as a whole."""

    what: str
    """For people."""
    gate: str
    fields: frozenset[str]
    """Names of `DroppedField` by which it is missed."""
    known: Callable[[SliceApi], bool]
    """Whether the server has the fields at all."""
    sample: Callable[[Pool], Pool | None]
    """The least of a pool that shows whether they are kept, for a dry run; None if the pool does without."""
    without: Callable[[Pool], Pool]
    """The pool without them, safe for schedulers that never hear of them."""
    trusted: bool
    """Whether they are sent to a server that no dry run can ask. Not if a moment without them gives one card to two claims."""
    reason: Reason
    """Of the Event about a server without it."""
    then: str
    """What is published instead, for people."""

    def missed(self, dropped: Iterable[DroppedField]) -> bool:
        return any(one.field in self.fields for one in dropped)


def _counted(pool: Pool) -> Pool | None:
    """Two devices of one counter set, where there are."""
    name = next((name for device in pool.devices for name in device.consumes), None)
    if name is None:
        return None
    bare = [Device(name=device.name, consumes=device.consumes) for device in pool.devices if name in device.consumes]
    return msgspec.structs.replace(pool, devices=tuple(bare[:2]), counters={name: pool.counters[name]})


def _tainted(pool: Pool) -> Pool | None:
    """One device with a taint that keeps claims away: what only informs may be lost."""
    for device in pool.devices:
        if any(taint.effect is not Effect.NONE for taint in device.taints):
            return msgspec.structs.replace(pool, devices=(Device(name=device.name, taints=device.taints),), counters={})
    return None


def _shared(pool: Pool) -> Pool | None:
    for device in pool.devices:
        if device.shares:
            one = Device(name=device.name, capacity=device.capacity, shares=device.shares)
            return msgspec.structs.replace(pool, devices=(one,), counters={})
    return None


COUNTERS: Final = Feature(
    what="shared counters",
    gate="DRAPartitionableDevices",
    fields=frozenset({"sharedCounters", "consumesCounters"}),
    known=lambda api: api.knows_counters,
    sample=_counted,
    without=Pool.without_counters,
    trusted=False,
    reason="CountersNotSupported",
    then="a card is offered whole or as VFs, not both",
)
TAINTS: Final = Feature(
    what="device taints",
    gate="DRADeviceTaints",
    fields=frozenset({"taints"}),
    known=lambda api: api.knows_taints,
    sample=_tainted,
    without=Pool.without_taints,
    trusted=True,
    reason="TaintsNotSupported",
    then="tainted GPUs are withdrawn",
)
SHARES: Final = Feature(
    what="devices for several claims",
    gate="DRAConsumableCapacity",
    fields=frozenset({"allowMultipleAllocations"}),
    known=lambda api: api.knows_shares,
    sample=_shared,
    without=Pool.without_shares,
    trusted=True,
    reason="SharingNotSupported",
    then="GPUs that are to be shared are given to one claim at a time",
)
ALL: Final = (COUNTERS, TAINTS, SHARES)
"""Counters first: what is left without them may do without the others."""
