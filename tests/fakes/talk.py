"""A service with every shape of call, and a record of what became of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from nursery_apps import rpc
from tests.fakes.talk_pb2 import Words

ECHO, COUNT, HANG, FAIL = (f"/tests.talk.Talk/{name}" for name in ("Echo", "Count", "Hang", "Fail"))


class Talk:
    def __init__(self) -> None:
        self.calls: list[rpc.Call] = []
        self.sent = 0
        self.hanging = trio.Semaphore(0)
        """Released once for every Hang that has begun, and for every stream that sent its first message."""
        self.cleaned = trio.Semaphore(0)
        """Released once for every Hang or Count that was cancelled and has finished its cleaning up."""
        self.let_go = trio.Event()
        """A Hang with text `wait` ends well when this is set."""

    def routes(self) -> list[rpc.Route]:
        def unary(path: str, call: Callable[[Words, rpc.Call], Awaitable[Words]]) -> rpc.Route:
            return rpc.Unary(path, Words.FromString, Words.SerializeToString, call)

        return [
            unary(ECHO, self.echo),
            unary(HANG, self.hang),
            unary(FAIL, self.fail),
            rpc.ServerStream(COUNT, Words.FromString, Words.SerializeToString, self.count),
        ]

    async def echo(self, words: Words, call: rpc.Call) -> Words:
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        return words

    async def count(self, words: Words, call: rpc.Call, send: Callable[[Words], Awaitable[None]]) -> None:
        try:
            for number in range(words.number):
                await send(Words(number=number, payload=words.payload))
                self.sent += 1
                if number == 0:
                    self.hanging.release()
            if words.text == "wait":
                await trio.sleep_forever()
        except trio.Cancelled:
            self.cleaned.release()
            raise

    async def hang(self, words: Words, call: rpc.Call) -> Words:
        self.hanging.release()
        try:
            if words.text == "wait":
                await self.let_go.wait()
                return words
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                self.cleaned.release()
        raise AssertionError("slept forever")

    async def fail(self, words: Words, call: rpc.Call) -> Words:
        async def refuse() -> None:
            raise rpc.RpcError(rpc.Status.ABORTED, "from a nursery")

        match words.text:
            case "status":
                raise rpc.RpcError(rpc.Status.INVALID_ARGUMENT, "bad thing: é\nsecond line")
            case "group":
                async with trio.open_nursery() as nursery:  # noqa: ASYNC112  the group that it raises is the point
                    nursery.start_soon(refuse)
            case "long":
                raise rpc.RpcError(rpc.Status.ABORTED, "é" * 100_000)
        raise RuntimeError("boom")
