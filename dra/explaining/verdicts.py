"""The answer to "why is it pending?", whoever worked it out."""

from __future__ import annotations

import enum

import msgspec

from dra.explaining.gpus import Holder


class Cause(enum.StrEnum):
    """Why a device is not for a request; in the order in which it is looked at, so that a later one is closer to a fit."""

    POOL = "pool"
    """Its slices are incomplete or invalid."""
    CLASS = "class"
    """An expression of the class is false."""
    SELECTOR = "selector"
    """An expression of the request is."""
    CEL_ERROR = "celError"
    """An expression cannot be evaluated on it: that ends the scheduler's attempt."""
    CAPACITY = "capacity"
    """It is too small, or too little of it is left."""
    TAINT = "taint"
    COUNTERS = "counters"
    """Of its card, too much is given away."""
    HELD = "held"
    FITS = "fits"

    @property
    def rank(self) -> int:
        return list(Cause).index(self)


class DeviceVerdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    driver: str
    pool: str
    device: str
    cause: Cause
    text: str = ""
    """A sentence; empty where it fits."""
    expression: str = ""
    """The one that is false or fails."""
    holders: tuple[Holder, ...] = ()
    """Who has it, or what excludes it."""
    cure: str = ""


class NodeVerdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    node: str
    excluded: str = ""
    """Why nothing there counts, whatever the devices."""
    fits: bool = False
    text: str = ""
    """Why the node as a whole does not do although devices fit; or that it does."""
    devices: tuple[DeviceVerdict, ...] = ()

    @property
    def fitting(self) -> int:
        return sum(verdict.cause is Cause.FITS for verdict in self.devices)


class RequestVerdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One request of the claim, or one alternative of it."""

    request: str
    wants: str
    """In words: `3 devices of class gpu.intel.com`."""
    count: int = 1
    """0 for all there are."""
    problem: str = ""
    """Why it cannot be met anywhere, as a class that is missing."""
    cure: str = ""
    nodes: tuple[NodeVerdict, ...] = ()


class State(enum.StrEnum):
    ALLOCATED = "allocated"
    PENDING = "pending"
    BROKEN = "broken"
    """Allocated, and yet it cannot be used: preparing it fails, its GPU is ill."""
    ABSENT = "absent"
    """It is to be made, or gone."""


class ClaimVerdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    namespace: str
    claim: str
    """Empty where it has no name yet: it was never made from its template."""
    entry: str = ""
    """What the pod calls it."""
    state: State
    node: str = ""
    """Where it is allocated."""
    devices: tuple[str, ...] = ()
    """What it has, `pool/device`."""
    causes: tuple[str, ...] = ()
    """Of the claim as a whole, sentences."""
    requests: tuple[RequestVerdict, ...] = ()
    summary: str
    cure: str = ""

    @property
    def is_fine(self) -> bool:
        return self.state is State.ALLOCATED


class Explanation(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    subject: str
    """`pod/name` or `claim/name`."""
    namespace: str
    fine: bool
    pod_phase: str = ""
    causes: tuple[str, ...] = ()
    """Of the pod as a whole."""
    claims: tuple[ClaimVerdict, ...] = ()
    events: tuple[str, ...] = ()
    """What the cluster said last, newest first."""
    summary: str
    cure: str = ""
