"""Reads the claims that prepare waits for, many of one namespace in one consistent LIST."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from dra import backoff
from dra.errors import ClaimRefused
from dra.kube.claims import ResourceClaim
from dra.names import ClaimUid
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.seams import ApiError, Forbidden, Invalid, KubeApi, NotFound, Resource, Unavailable

log = logging.getLogger(__name__)

LIST_FROM: Final = 4
"""So many claims of one namespace waiting are cheaper as one LIST: on a real API server a GET took 2 ms, a LIST of 64 claims 8 ms."""
LIST_WASTE: Final = 32
"""A LIST that returned more than so many claims for each one wanted is not tried again: namespaces with thousands exist."""
GETS_AT_ONCE: Final = 6
"""Two fewer than the connection pool holds: the watches need theirs."""
ROUNDS_AT_ONCE: Final = 2
"""Rounds of one namespace on their way: the first caller never waits, a burst behind it is read together, and one answer that hangs does
not hold up the namespace."""


class _Waiting:
    __slots__ = ("claim", "done", "error", "ref")

    def __init__(self, ref: ClaimRef) -> None:
        self.ref = ref
        self.done = trio.Event()
        self.claim: ResourceClaim | None = None
        self.error: ApiError | None = None


class ClaimReader:
    """`run` does the reading, `read` waits for it. Never a cache: what is returned was asked for after `read` was called."""

    def __init__(self, kube: KubeApi, claims: Callable[[], Resource[ResourceClaim] | None], random: Callable[[], float]) -> None:
        """`claims` names the served version of ResourceClaim, None while DRA is off."""
        self._kube = kube
        self._claims = claims
        self._random = random
        self._waiting: dict[str, list[_Waiting]] = {}
        self._rounds: dict[str, int] = {}
        self._wake = trio.Event()
        self._listed: dict[str, int] = {}

    async def read(self, ref: ClaimRef) -> ResourceClaim:
        """The claim as the API server has it now, retried through hiccups for as long as the caller's deadline lasts.

        Raises:
            ClaimRefused: there is no such claim, or the API server refuses for good (permissions).
        """
        delays = backoff.delays(self._random, first_seconds=0.2, cap_seconds=5)
        while True:
            waiting = _Waiting(ref)
            self._waiting.setdefault(ref.namespace, []).append(waiting)
            self._wake.set()
            await waiting.done.wait()
            if waiting.claim is not None:
                return waiting.claim
            match waiting.error:
                case None | NotFound():
                    raise ClaimRefused(f"claim {ref.namespace}/{ref.name} does not exist (deleted?)", reason="ClaimNotFound")
                case Forbidden() | Invalid() as final:
                    raise ClaimRefused(f"cannot read claim {ref.namespace}/{ref.name}: {final}", reason="ClaimUnreadable")
                case hiccup:
                    delay = max(next(delays), hiccup.retry_after_seconds or 0)
                    log.warning("cannot read claim %s/%s, again in %.1f s: %s", ref.namespace, ref.name, delay, hiccup)
                    await trio.sleep(delay)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve readers until cancelled. Those who come while a round is out are read together in the next one."""
        async with trio.open_nursery() as rounds:
            limit = trio.CapacityLimiter(GETS_AT_ONCE)
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                for namespace in [n for n in self._waiting if self._rounds.get(n, 0) < ROUNDS_AT_ONCE]:
                    self._rounds[namespace] = self._rounds.get(namespace, 0) + 1
                    rounds.start_soon(self._round, namespace, self._waiting.pop(namespace), limit)

    async def _round(self, namespace: str, group: list[_Waiting], limit: trio.CapacityLimiter) -> None:
        try:
            if len(group) >= LIST_FROM and self._listed.get(namespace, 0) <= LIST_WASTE * len(group):
                group = await self._list(namespace, group)
            async with trio.open_nursery() as gets:
                for waiting in group:
                    gets.start_soon(self._get, waiting, limit)
        finally:
            self._rounds[namespace] -= 1
            if not self._rounds[namespace]:
                del self._rounds[namespace]
            self._wake.set()

    async def _list(self, namespace: str, group: list[_Waiting]) -> list[_Waiting]:
        """Answer from one LIST; returns those it does not have under their UID: only a GET tells a replaced claim from a missing one."""
        resource = self._claims()
        if resource is None:
            return group
        try:
            listing = await self._kube.list(resource, namespace=namespace)
        except ApiError as error:
            for waiting in group:
                waiting.error = error
                waiting.done.set()
            return []
        self._listed[namespace] = len(listing.items)
        by_uid = {ClaimUid(claim.metadata.uid): claim for claim in listing.items}
        missing: list[_Waiting] = []
        for waiting in group:
            if (claim := by_uid.get(waiting.ref.uid)) is None:
                missing.append(waiting)
            else:
                waiting.claim = claim
                waiting.done.set()
        return missing

    async def _get(self, waiting: _Waiting, limit: trio.CapacityLimiter) -> None:
        resource = self._claims()
        try:
            if resource is None:
                raise Unavailable(0, "NotServed", "the API server does not serve resource.k8s.io")
            async with limit:
                waiting.claim = await self._kube.get(resource, waiting.ref.name, namespace=waiting.ref.namespace)
        except ApiError as error:
            waiting.error = error
        waiting.done.set()
