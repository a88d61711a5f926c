"""What the rules ask of a Kubernetes release."""

from __future__ import annotations

from typing import Protocol


class Release(Protocol):
    @property
    def minor(self) -> int:
        """34 of Kubernetes 1.34."""

    def has(self, gate: str) -> bool:
        """Whether the feature gate of that name is on."""
