"""One operation a claim at a time, all claims at once: the claims nursery behind the kubelet's calls.

A gRPC handler only leaves an order here and waits for its outcome; if it is cut off (deadline, kubelet restart) the work goes on and the
kubelet's next call finds it done. Orders for one claim form a chain: an equal one joins the last, an unprepare cuts off the prepare
before it, and a prepare waits for the unprepare before it.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
from typing import Final, Protocol

import trio

from dra.errors import DriverError
from dra.kube.claims import Consumer
from dra.names import ClaimUid
from nursery_apps.node.claim_desk import ClaimRef, PreparedReply, Progress
from nursery_apps.node.preparer import Preparer

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 35.0
"""How long an operation waits for what may still come good. The kubelet gives a call 45 s and, after an error, comes back only some
80 s later, so waiting nearly that long inside the call is what starts the pod soonest."""
ANSWER_MARGIN_SECONDS: Final = 2.0
"""Left of the caller's deadline for the answer's way back."""
ORDERS_WAITING: Final = 64
"""Orders taken but not started; beyond it a handler waits at the counter, and with it the kubelet's call."""


class Verb(enum.StrEnum):
    PREPARE = "prepare"
    UNPREPARE = "unprepare"
    SETTLE = "settle"
    """Ours: make the facts match the record (reconciliation, recovery)."""


class OnOutcome(Protocol):
    def __call__(
        self, verb: Verb, ref: ClaimRef, error: DriverError | None, seconds: float, consumers: tuple[Consumer, ...], /
    ) -> None: ...


class Operation:
    """One order and what became of it."""

    def __init__(self, verb: Verb, ref: ClaimRef, after: Operation | None) -> None:
        self.verb = verb
        self.ref = ref
        self.after = after
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.progress = Progress()
        self.reply: PreparedReply = ()
        self.error: DriverError | None = None
        self.cut_off = False

    def cut_off_chain(self) -> None:
        """End this operation and those it waits for, down to the first unprepare: the claim is going."""
        operation: Operation | None = self
        while operation is not None and operation.verb is not Verb.UNPREPARE:
            operation.cut_off = True
            operation.scope.cancel()
            operation = operation.after


class Superseded(DriverError):
    """The kubelet's move: it asked for the opposite meanwhile, or the driver is stopping."""

    reason = "Superseded"


class TimedOut(DriverError):
    """Time's move: the kubelet will ask again."""

    reason = "TimedOut"


class Desk:
    """Keeps the promises of `nursery_apps.node.claim_desk.ClaimDesk`."""

    def __init__(self, preparer: Preparer, *, on_outcome: OnOutcome) -> None:
        self._preparer = preparer
        self._on_outcome = on_outcome
        self._last: dict[ClaimUid, Operation] = {}
        self._send, self._receive = trio.open_memory_channel[Operation](ORDERS_WAITING)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until `close`, then until the last operation is done. This nursery is the claims nursery: its deadline is the grace."""
        async with trio.open_nursery() as claims, self._receive:
            task_status.started()
            async for operation in self._receive:
                claims.start_soon(self._work, operation)
                # All orders of one call start together, so that they share a read and a journal write.
                with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        claims.start_soon(self._work, self._receive.receive_nowait())

    def close(self) -> None:
        """No more orders: called when intake has stopped."""
        self._send.close()

    async def prepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, PreparedReply | str]:
        operations = [await self._order(Verb.PREPARE, ref) for ref in claims]
        await _all_done(operations, deadline_seconds)
        return {operation.ref.uid: _text(operation) or operation.reply for operation in operations}

    async def unprepare(self, claims: list[ClaimRef], deadline_seconds: float) -> dict[ClaimUid, str | None]:
        operations = [await self._order(Verb.UNPREPARE, ref) for ref in claims]
        await _all_done(operations, deadline_seconds)
        return {operation.ref.uid: _text(operation) for operation in operations}

    async def settle(self, refs: list[ClaimRef]) -> None:
        """Bring facts and records together, in line with whatever the kubelet asks meanwhile. Failures are logged and tried again later."""
        operations = [await self._order(Verb.SETTLE, ref) for ref in refs]
        await _all_done(operations, math.inf)

    def busy(self) -> int:
        """Operations not done yet."""
        return len(self._last)

    async def _order(self, verb: Verb, ref: ClaimRef) -> Operation:
        last = self._last.get(ref.uid)
        if last is not None and not last.done.is_set():
            if last.verb is verb:
                return last
            if verb is Verb.UNPREPARE:
                last.cut_off_chain()
        operation = Operation(verb, ref, last)
        # In the chain before the first await: two calls that race here still agree on an order.
        self._last[ref.uid] = operation
        try:
            try:
                self._send.send_nowait(operation)
            except trio.WouldBlock:
                await self._send.send(operation)
        except BaseException:
            operation.error = Superseded("the driver is stopping")
            self._finish(operation)
            raise
        return operation

    async def _work(self, operation: Operation) -> None:
        started = trio.current_time()
        try:
            if operation.after is not None:
                await operation.after.done.wait()
                operation.after = None  # a long chain must not keep its past alive
            operation.scope.deadline = trio.current_time() + PATIENCE_SECONDS
            operation.error = Superseded("the driver is stopping; the kubelet asks again")
            with operation.scope:
                operation.error = await self._perform(operation)
            if operation.scope.cancelled_caught:
                operation.error = (
                    Superseded("the claim is being unprepared")
                    if operation.cut_off
                    else TimedOut(f"not done within {PATIENCE_SECONDS:.0f} s, waiting for: {operation.progress.waiting_for}")
                )
        finally:
            self._finish(operation)
            took = trio.current_time() - started
            self._on_outcome(operation.verb, operation.ref, operation.error, took, operation.progress.consumers)

    async def _perform(self, operation: Operation) -> DriverError | None:
        try:
            match operation.verb:
                case Verb.PREPARE:
                    operation.reply = await self._preparer.prepare(operation.ref, operation.progress)
                case Verb.UNPREPARE:
                    await self._preparer.unprepare(operation.ref)
                case Verb.SETTLE:
                    await self._preparer.settle(operation.ref.uid)
        except DriverError as refusal:
            return refusal
        return None

    def _finish(self, operation: Operation) -> None:
        operation.done.set()
        if self._last.get(operation.ref.uid) is operation:
            del self._last[operation.ref.uid]


async def _all_done(operations: list[Operation], deadline_seconds: float) -> None:
    with trio.move_on_after(max(0.0, deadline_seconds - ANSWER_MARGIN_SECONDS)):
        for operation in operations:
            await operation.done.wait()


def _text(operation: Operation) -> str | None:
    if not operation.done.is_set():
        return f"{operation.verb} goes on, ask again; it waits for: {operation.progress.waiting_for}"
    return str(operation.error) if operation.error is not None else None
