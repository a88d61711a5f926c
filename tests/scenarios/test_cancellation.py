"""Cancellation at every checkpoint of prepare and unprepare, from every side it can come from.

Whoever is cut off, the claim is afterwards either clean or finished by the kubelet's next call.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trio
import trio.testing

from dra.names import ClaimUid
from nursery_apps.node.claim_desk import PreparedReply
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim

G1 = gpu(1)
LATEST_STEP = 400
"""No operation takes as many scheduler steps; reaching it means that the counting is broken."""


class At(trio.abc.Instrument):
    """Calls `action` before the n-th step that any task takes once armed."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.left = step
        self.action = action
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.fired = True
            self.action()


@contextlib.contextmanager
def armed(at: At) -> Iterator[None]:
    trio.lowlevel.add_instrument(at)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(at)


class SiblingFailed(Exception):
    """Some other task of the program crashed."""


async def _do(node: ClaimNode, verb: str) -> PreparedReply | str | None:
    return await (node.prepare("a") if verb == "prepare" else node.unprepare("a"))


async def _client_gone(disks: Disks, verb: str, step: int) -> bool:
    """The caller is cancelled (deadline, reset stream); the program lives on and the kubelet asks again."""
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
        with trio.CancelScope() as caller:
            at = At(step, caller.cancel)
            with armed(at):
                await _do(node, verb)
        await _retry_and_check(node, verb)
    return at.fired


async def _stopped(disks: Disks, verb: str, step: int) -> bool:
    """SIGTERM with no grace at all: everything is cancelled at once; the next life is asked again."""
    with trio.CancelScope() as everything:
        at = At(step, everything.cancel)
        async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
            with armed(at):
                await _do(node, verb)
    await _next_life(disks, verb)
    return at.fired


async def _sibling_failed(disks: Disks, verb: str, step: int) -> bool:
    """Another task crashes: the program goes down without grace; the next life is asked again."""
    now = trio.Event()
    at = At(step, now.set)

    async def sibling() -> None:
        await now.wait()
        raise SiblingFailed

    try:
        async with trio.open_nursery() as program:
            async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
                program.start_soon(sibling)
                with armed(at):
                    await _do(node, verb)
            program.cancel_scope.cancel()
    except* SiblingFailed:
        pass
    await _next_life(disks, verb)
    return at.fired


async def _next_life(disks: Disks, verb: str) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
        await _retry_and_check(node, verb)


async def _retry_and_check(node: ClaimNode, verb: str) -> None:
    if verb == "prepare":
        answer = await node.prepare("a")
        assert not isinstance(answer, str), answer
        assert len(node.disks.cdi) == 1
        assert ClaimUid("a") in node.journal.ledger.value.claims
    assert await node.unprepare("a") is None
    assert node.disks.cdi == {}
    assert dict(node.journal.ledger.value.claims) == {}
    await trio.testing.wait_all_tasks_blocked()
    assert node.desk.busy() == 0


async def _prepared(disks: Disks) -> None:
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
        assert not isinstance(await node.prepare("a"), str)


@pytest.mark.parametrize("verb", ["prepare", "unprepare"])
@pytest.mark.parametrize("side", [_client_gone, _stopped, _sibling_failed], ids=["client-gone", "sigterm", "sibling-failed"])
def test_cancelled_at_every_step(
    side: Callable[..., object], verb: str, figure: Callable[[str, int], None], request: pytest.FixtureRequest
) -> None:
    begin = Disks()
    if verb == "unprepare":
        trio.run(_prepared, begin)
    step = 0
    while step < LATEST_STEP:
        step += 1
        if not trio.run(partial(side, copy.deepcopy(begin), verb, step), clock=trio.testing.MockClock(autojump_threshold=0)):  # type: ignore[arg-type]
            break
    assert 5 < step < LATEST_STEP
    figure(f"cancellation, {request.node.callspec.id}: steps", step - 1)
