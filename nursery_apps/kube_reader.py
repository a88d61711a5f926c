"""The synchronous seam of `kubectl intel-gpu`, which is installed without trio: one GET of the API server, or a command in a pod,
with a deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class NoAnswer(Exception):
    """There was none: no usable kubeconfig, nobody there, nothing in time, a certificate that is not trusted. The text says which."""


class Answer(msgspec.Struct, frozen=True):
    status: int
    """Of HTTP, whatever it is."""
    body: bytes


class Ran(msgspec.Struct, frozen=True):
    """A command in a pod's container that has ended."""

    code: int
    out: str
    err: str


class KubeReader(Protocol):
    namespace: str
    """The context's, `default` where it has none."""

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """
        Raises:
            NoAnswer
        """

    def run(self, namespace: str, pod: str, command: Sequence[str]) -> Ran:
        """In the pod's first container, without input.

        Raises:
            NoAnswer: it did not run, or did not end in time.
        """
