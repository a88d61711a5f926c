"""Calls that the kernel may hold for ever: they hold up nobody, and their return is heard."""

from __future__ import annotations

import threading

import pytest
import trio

from nursery_apps.edges import kernel_call
from nursery_apps.seams import Hung


def refuse() -> None:
    raise OSError(16, "Device or resource busy")


async def test_an_answer_and_a_refusal_come_back_as_they_are() -> None:
    call = kernel_call.caller(2)
    assert await call(lambda: 42, seconds=5) == 42
    with pytest.raises(OSError, match="busy"):
        await call(refuse, seconds=5)


async def test_a_call_that_hangs_is_left_behind_and_others_go_on() -> None:
    call, gate = kernel_call.caller(2), threading.Event()
    with pytest.raises(Hung, match=r"no answer from the kernel for 0\.05 s") as hung:
        await call(gate.wait, seconds=0.05)
    assert not hung.value.back.is_set()
    assert await call(lambda: "another", seconds=5) == "another"
    gate.set()
    with trio.fail_after(5):
        await hung.value.back.wait()


async def test_calls_beyond_the_bound_wait_and_their_deadline_runs() -> None:
    call, gate = kernel_call.caller(1), threading.Event()
    with pytest.raises(Hung):
        await call(gate.wait, seconds=0.05)
    with pytest.raises(Hung) as waiting:
        await call(lambda: "never begun", seconds=0.05)
    assert waiting.value.back.is_set(), "nothing is on its way"
    gate.set()


async def test_a_caller_that_is_cancelled_is_free_at_once() -> None:
    call, gate = kernel_call.caller(1), threading.Event()
    with trio.move_on_after(0.05) as scope:
        await call(gate.wait, seconds=60)
    assert scope.cancelled_caught
    gate.set()
