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
from nursery_apps.seams import ApiError, Forbidden, Invalid, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

LIST_FROM: Final = 4
"""So many claims of one namespace waiting are cheaper as one LIST: on a real API server a GET took 2 ms, a LIST of 64 claims 8 ms."""
LIST_WASTE: Final = 32
"""A LIST that returned more than so many claims for each one wanted is not tried again: namespaces with thousands exist."""
GETS_AT_ONCE: Final = 8
"""What the connection pool holds."""


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
        self._waiting: list[_Waiting] = []
        self._wake = trio.Event()
        self._wasteful: dict[str, int] = {}

    async def read(self, ref: ClaimRef) -> ResourceClaim:
        """The claim as the API server has it now, retried through hiccups for as long as the caller's deadline lasts.

        Raises:
            ClaimRefused: there is no such claim, or the API server refuses for good (permissions).
        """
        delays = backoff.delays(self._random, first_seconds=0.2, cap_seconds=5)
        while True:
            waiting = _Waiting(ref)
            self._waiting.append(waiting)
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
        """Serve readers until cancelled. Rounds overlap, so a slow answer holds up nobody else."""
        async with trio.open_nursery() as rounds:
            limit = trio.CapacityLimiter(GETS_AT_ONCE)
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                # One checkpoint lets calls that arrive together be read together.
                await trio.lowlevel.checkpoint()
                batch, self._waiting = self._waiting, []
                by_namespace: dict[str, list[_Waiting]] = {}
                for waiting in batch:
                    by_namespace.setdefault(waiting.ref.namespace, []).append(waiting)
                for namespace, group in by_namespace.items():
                    if len(group) >= LIST_FROM and self._wasteful.get(namespace, 0) <= LIST_WASTE * len(group):
                        rounds.start_soon(self._list, namespace, group, rounds, limit)
                    else:
                        for waiting in group:
                            rounds.start_soon(self._get, waiting, limit)

    async def _list(self, namespace: str, group: list[_Waiting], rounds: trio.Nursery, limit: trio.CapacityLimiter) -> None:
        resource = self._claims()
        if resource is None:
            return _fail(group, _NO_API)
        try:
            listing = await self._kube.list(resource, namespace=namespace)
        except ApiError as error:
            return _fail(group, error)
        self._wasteful[namespace] = len(listing.items)
        by_uid = {ClaimUid(claim.metadata.uid): claim for claim in listing.items}
        for waiting in group:
            if (claim := by_uid.get(waiting.ref.uid)) is not None:
                waiting.claim = claim
                waiting.done.set()
            else:
                # Not there under this UID: only a GET by name can tell a replaced claim from a missing one.
                rounds.start_soon(self._get, waiting, limit)
        return None

    async def _get(self, waiting: _Waiting, limit: trio.CapacityLimiter) -> None:
        resource = self._claims()
        if resource is None:
            return _fail([waiting], _NO_API)
        try:
            async with limit:
                waiting.claim = await self._kube.get(resource, waiting.ref.name, namespace=waiting.ref.namespace)
        except ApiError as error:
            waiting.error = error
        waiting.done.set()
        return None


_NO_API: Final = ApiError(0, "NotServed", "the API server does not serve resource.k8s.io")


def _fail(group: list[_Waiting], error: ApiError) -> None:
    for waiting in group:
        waiting.error = error
        waiting.done.set()
