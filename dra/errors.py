"""Refusals, sorted by whose move is next.

The kubelet tries a failed prepare again only after about 80 s, so an error is returned when it is final; what may still come good is a
`NotYet`, waited for inside the call. Texts reach the pod's Event: one line, what and where and what to do.
"""

from __future__ import annotations


class DriverError(Exception):
    """Base of everything the driver refuses; never raised itself. `reason` is a stable CamelCase word for metrics and Events."""

    reason = "Internal"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        if type(self) is DriverError:
            raise TypeError("raise one of its kinds")
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class ClaimRefused(DriverError):
    """The user's or administrator's move: this claim can never be prepared as it stands."""

    reason = "ClaimRefused"


class NotYet(DriverError):
    """Time's move: the same request may succeed when something else has happened."""

    reason = "NotYet"


class HardwareFault(DriverError):
    """The kernel's or the card's move: it answered with an error that retrying does not mend."""

    reason = "HardwareFault"


class StateCorrupt(DriverError):
    """Something on disk could not be believed; the bytes are kept, the rest of the node goes on."""

    reason = "StateCorrupt"
