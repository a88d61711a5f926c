"""Structured or classic DRA: the kubelet's release decides it, and what was once decided is remembered.

A kubelet up to 1.30 cannot do anything with the one, a later one nothing with the other, and both speak of `v1alpha3.Node`: a wrong guess
would answer calls in words that are not understood. So nothing is guessed: a plugin that was never told waits for its Node.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from dra import backoff, journal, kubernetes_releases, semver
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.node.own_node import NODES, OwnNode
from nursery_apps.seams import ApiError, KubeApi, RunBlocking, StateDir

log = logging.getLogger(__name__)

STRUCTURED_SINCE: Final = (1, 31)
FILE: Final = "dra-kind"
"""In the state directory: what was decided last."""
PATIENCE_SECONDS: Final = 5.0
"""For the Node at a start that remembers classic DRA: a kubelet is upgraded with its machine drained, and then the plugin starts anew."""


class DraKind(enum.StrEnum):
    STRUCTURED = "structured"
    CLASSIC = "classic"


def kind_for(kubelet_version: str) -> DraKind | None:
    """`v1.30.4` -> classic; None if that is no version."""
    release = semver.release(kubelet_version)
    if release is None:
        return None
    return DraKind.STRUCTURED if release >= STRUCTURED_SINCE else DraKind.CLASSIC


def remembered(state: StateDir) -> DraKind | None:
    """What was decided last; blocking. A journal without a word of it was written before classic DRA was known here.

    Raises:
        OSError: the directory cannot be read.
    """
    text = (state.read(FILE) or b"").decode(errors="replace").strip()
    if text in tuple(DraKind):
        return DraKind(text)
    return DraKind.STRUCTURED if state.stamp(journal.FILE) is not None else None


def remember(state: StateDir, kind: DraKind) -> None:
    """Durably; blocking.

    Raises:
        OSError: the directory cannot be written.
    """
    if (state.read(FILE) or b"").decode(errors="replace").strip() != kind:
        state.replace(FILE, f"{kind}\n".encode())


async def choose(kube: KubeApi, node: NodeName, state: StateDir, *, run_blocking: RunBlocking, random: Callable[[], float]) -> DraKind:
    """Decide at start. Structured DRA that is remembered is begun with at once: if the kubelet is another by now, `Crossing` tells.

    Raises:
        OSError: the state directory cannot be used.
        UnsupportedRelease: the kubelet is older than any that the driver is for.
    """
    before = await run_blocking(partial(remembered, state))
    kind = before
    if before is not DraKind.STRUCTURED:
        with trio.move_on_after(PATIENCE_SECONDS if before is not None else float("inf")) as patience:
            kind = await _ask(kube, node, random)
        if patience.cancelled_caught:
            log.warning("the API server does not tell the kubelet's release: going on with %s DRA, as before", before)
    assert kind is not None
    await run_blocking(partial(remember, state, kind))
    return kind


async def _ask(kube: KubeApi, node: NodeName, random: Callable[[], float]) -> DraKind:
    """Until the Node says it. An API server is never older than its kubelets, so the kubelet's release speaks for both."""
    said, delays = "", backoff.delays(random, first_seconds=0.2, cap_seconds=10)
    while True:
        try:
            version = (await kube.get(NODES, node)).status.node_info.kubelet_version
            kubernetes_releases.demand("the kubelet", version)
            if (kind := kind_for(version)) is not None:
                log.info("kubelet %s: %s DRA", version, kind)
                return kind
            why = f"Node {node} tells no release of its kubelet"
        except ApiError as error:
            why = str(error)
        if why != said:
            said = why
            log.warning("waiting to learn from the API server which DRA the kubelet speaks: %s", why)
        await trio.sleep(next(delays))


class Crossing:
    """Notices that the kubelet was exchanged for one that speaks the other DRA."""

    def __init__(self, kind: DraKind, node: Latest[OwnNode | None], state: StateDir, run_blocking: RunBlocking) -> None:
        self._kind, self._node, self._state, self._run_blocking = kind, node, state, run_blocking

    def is_crossed(self) -> bool:
        """As far as is known."""
        node = self._node.value
        return node is not None and kind_for(node.kubelet_version) not in (None, self._kind)

    async def remember(self) -> None:
        """Write down what this program speaks, where that was removed."""
        await self._run_blocking(partial(remember, self._state, self._kind))

    async def run(self, stop: trio.Event) -> None:
        """Have the program stop when that has happened: the next start is of the other kind."""
        while not self.is_crossed():
            await self._node.wait_newer(self._node.version)
        assert self._node.value is not None
        version = self._node.value.kubelet_version
        other = kind_for(version)
        assert other is not None
        await self._run_blocking(partial(remember, self._state, other))
        log.warning("the kubelet is %s now, which speaks %s DRA: stopping, to be started again for that", version, other)
        stop.set()
