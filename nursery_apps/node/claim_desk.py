"""Where the kubelet's calls are handed over: the words both sides of the counter use."""

from __future__ import annotations

from typing import Protocol

import msgspec

from dra.kube.claims import Consumer
from dra.names import ClaimUid


class ClaimRef(msgspec.Struct, frozen=True):
    """A claim as the kubelet names it. Only the UID identifies; name and namespace find the object and serve logs."""

    uid: ClaimUid
    namespace: str
    name: str
    handle: str = ""
    """The text that a controller wrote into the allocation (kubelets up to 1.30), and all that a prepare needs."""


class PreparedDevice(msgspec.Struct, frozen=True):
    """One device of a prepared claim, as the kubelet is told."""

    requests: tuple[str, ...]
    """Base names of the requests it answers; empty means all."""
    pool: str
    device: str
    cdi_ids: tuple[str, ...]
    share_id: str | None = None


PreparedReply = tuple[PreparedDevice, ...]


class Progress:
    """How far an operation has come, for those who are told of its failure."""

    waiting_for = "its turn"
    """What, for people."""
    consumers: tuple[Consumer, ...] = ()
    """Whom the claim is reserved for, once it has been read."""

    def wait_for(self, what: str) -> None:
        self.waiting_for = what


class ClaimDesk(Protocol):
    """Takes the kubelet's orders. A caller that goes away tears nothing: the work goes on and the next call finds its result."""

    async def prepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, PreparedReply | str]:
        """Devices or a one-line error text for every claim, within the deadline."""

    async def unprepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, str | None]:
        """None (done) or a one-line error text for every claim, within the deadline. Success for whatever is gone already."""
