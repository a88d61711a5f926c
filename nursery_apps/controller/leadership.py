"""One controller at a time: what only a leader may do runs inside the cancel scope of its Lease.

The scope's deadline is a little before others may take the Lease, and moves on with every renewal: a leader that cannot reach the API
server has stopped by the time another one starts, however its own clock or the server's runs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dra import election
from dra.election import Seen
from dra.kube.classic import Lease
from nursery_apps.controller.kinds import LEASES, MERGE
from nursery_apps.seams import ApiError, Clock, Conflict, KubeApi, NotFound

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 3.0
"""For getting the Lease: one request that hangs must not hold up a hand-over."""
GIVE_UP_SECONDS: Final = 2.0
"""For telling others that the Lease is free; without it they wait until it runs out."""


class Fence:
    """Whether the Lease still holds, asked right before a write: a process that was stopped may wake after its deadline."""

    def __init__(self) -> None:
        self.until = 0.0
        """On Trio's clock."""

    def holds(self) -> bool:
        return trio.current_time() < self.until


class Leadership:
    def __init__(
        self, kube: KubeApi, *, namespace: str, name: str, identity: str, clock: Clock, on_change: Callable[[bool], None] = lambda _: None
    ) -> None:
        """
        Args:
            identity: of this process and no other: a pod's name and something random.
            on_change: told when this process begins or ceases to lead.
        """
        self._kube = kube
        self._namespace, self._name, self._identity = namespace, name, identity
        self._clock = clock
        self._on_change = on_change
        self.leading = False
        self.leader = ""
        """The identity last seen in the Lease."""
        self.error: str | None = "the Lease was not read yet"
        self._ours_until = -float("inf")
        """Until then nobody else can hold the Lease."""
        self._missing_since: float | None = None

    async def lead(self, work: Callable[[Fence], Awaitable[None]]) -> None:
        """Run `work` whenever this process holds the Lease, anew each time, until cancelled; gives the Lease up at the end.

        `work` is cancelled when the Lease is lost, and begins from nothing when it is won again. What it raises goes through.
        """
        while True:
            lease, renewed_at = await self._acquire()
            fence = Fence()
            self._set(True)
            try:
                async with trio.open_nursery() as nursery:
                    self._extend(nursery.cancel_scope, fence, renewed_at)
                    nursery.start_soon(work, fence)
                    await self._renew(lease, nursery.cancel_scope, fence)
                    nursery.cancel_scope.cancel()
            except BaseException:
                with trio.CancelScope(deadline=trio.current_time() + GIVE_UP_SECONDS, shield=True):
                    await self._give_up()
                raise
            finally:
                fence.until = 0.0
                self._set(False)
            log.warning("lost the Lease %s/%s: another controller may lead now", self._namespace, self._name)

    async def _acquire(self) -> tuple[Lease, float]:
        seen: Seen | None = None
        while True:
            started = trio.current_time()
            try:
                lease: Lease | None = None
                with trio.move_on_after(LOOK_SECONDS) as look:
                    lease, seen = await self._try(seen)
                self.error = None if not look.cancelled_caught else f"no answer about the Lease within {LOOK_SECONDS:g} s"
                if lease is not None:
                    return lease, started
            except Conflict:
                pass  # somebody was quicker; look again
            except ApiError as error:
                self._missing_since = None  # it may have come and gone since the last look
                trouble = f"cannot get the Lease {self._namespace}/{self._name}: {error}"
                if trouble != self.error:  # once, not with every look
                    log.warning("%s", trouble)
                self.error = trouble
            await trio.sleep(election.RETRY_SECONDS)

    async def _try(self, before: Seen | None) -> tuple[Lease | None, Seen | None]:
        try:
            found = await self._kube.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            if not self._may_create():
                return None, before
            body = election.new(self._name, self._namespace, self._identity, self._clock())
            return await self._kube.create(LEASES, body, namespace=self._namespace), None
        self._missing_since = None
        seen = election.looked(before, found, trio.current_time())
        self.leader = found.spec.holder_identity or ""
        if not election.may_take(seen, self._identity, trio.current_time()):
            return None, seen
        return await self._patch(found), None

    def _may_create(self) -> bool:
        """Somebody may have deleted the Lease, and its holder goes on until it could not renew for so long. A first start waits too."""
        now = trio.current_time()
        if self._missing_since is None:
            self._missing_since = now
        return now < self._ours_until or now >= self._missing_since + election.RENEW_WITHIN_SECONDS

    async def _renew(self, lease: Lease, scope: trio.CancelScope, fence: Fence) -> None:
        """Renew until it is lost: returns then, or is cut off by the scope's deadline."""
        while True:
            await trio.sleep(election.RETRY_SECONDS)
            started = trio.current_time()
            try:
                lease = await self._patch(lease)
            except NotFound:
                return  # somebody deleted it: who creates it anew leads
            except Conflict:
                if (found := await self._look()) is None:
                    continue
                self.leader = found.spec.holder_identity or ""
                if self.leader != self._identity:
                    return
                lease = found  # a renewal of ours got no answer, or somebody wrote a label
                continue
            except ApiError as error:
                log.warning("cannot renew the Lease %s/%s: %s", self._namespace, self._name, error)
                continue
            self._extend(scope, fence, started)

    async def _look(self) -> Lease | None:
        try:
            return await self._kube.get(LEASES, self._name, namespace=self._namespace)
        except ApiError:
            return None

    def _extend(self, scope: trio.CancelScope, fence: Fence, renewed_at: float) -> None:
        scope.deadline = fence.until = self._ours_until = renewed_at + election.RENEW_WITHIN_SECONDS

    async def _patch(self, lease: Lease) -> Lease:
        body = election.taken(lease, self._identity, self._clock())
        made = await self._kube.patch(LEASES, self._name, body, content_type=MERGE, namespace=self._namespace)
        self.leader = self._identity
        return made

    async def _give_up(self) -> None:
        try:
            lease = await self._kube.get(LEASES, self._name, namespace=self._namespace)
            if lease.spec.holder_identity == self._identity:
                body = election.given_up(lease, self._clock())
                await self._kube.patch(LEASES, self._name, body, content_type=MERGE, namespace=self._namespace)
                log.info("gave up the Lease %s/%s", self._namespace, self._name)
        except ApiError as error:
            log.warning("cannot give up the Lease %s/%s, others wait until it runs out: %s", self._namespace, self._name, error)

    def _set(self, leading: bool) -> None:
        self.leading = leading
        self._on_change(leading)
        if leading:
            log.info("leading as %s", self._identity)
