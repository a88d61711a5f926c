"""Signals stop and reload; what ends a program is one readable line and an exit code."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import pytest
import trio

from dra.kubernetes_releases import UnsupportedRelease
from dra.settings import SettingsInvalid
from nursery_apps import lifecycle

OnHangUp = Callable[[Callable[[], None]], None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_a_second_one_changes_nothing(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stopped = False

    async def app(stop: trio.Event, on_hang_up: OnHangUp) -> None:
        nonlocal stopped
        signal.raise_signal(number)
        with trio.fail_after(5):
            await stop.wait()
        signal.raise_signal(number)
        stopped = True  # and ends before anybody has taken the second one

    assert lifecycle.run(app) == lifecycle.OK
    assert stopped
    assert caplog.messages.count(f"{number.name}: stopping") == 1


def test_sighup_calls_whoever_asked_for_it_each_time() -> None:
    calls = 0

    async def app(stop: trio.Event, on_hang_up: OnHangUp) -> None:
        called = trio.Event()

        def hang_up() -> None:
            nonlocal calls
            calls += 1
            called.set()

        on_hang_up(hang_up)
        for _ in range(2):
            called = trio.Event()
            signal.raise_signal(signal.SIGHUP)
            with trio.fail_after(5):
                await called.wait()
        assert not stop.is_set()

    assert lifecycle.run(app) == lifecycle.OK
    assert calls == 2


def failing(*failures: Exception) -> lifecycle.App:
    async def app(stop: trio.Event, on_hang_up: OnHangUp) -> None:
        async def fail(failure: Exception) -> None:
            raise failure

        async with trio.open_nursery() as nursery:
            for failure in failures:
                nursery.start_soon(fail, failure)

    return app


def test_what_the_world_refuses_is_one_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert lifecycle.run(failing(OSError(13, "Permission denied", "/var/run/cdi"))) == lifecycle.CRASHED
    [record] = caplog.records
    assert record.getMessage() == "stopped by PermissionError: [Errno 13] Permission denied: '/var/run/cdi'"
    assert record.exc_info is None


def test_a_programming_error_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert lifecycle.run(failing(ZeroDivisionError("oops"))) == lifecycle.CRASHED
    [record] = caplog.records
    assert record.getMessage() == "stopped by ZeroDivisionError: oops"
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_each_of_several_failures_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert lifecycle.run(failing(OSError(5, "a"), OSError(5, "b"))) == lifecycle.CRASHED
    assert sorted(caplog.messages) == ["stopped by OSError: [Errno 5] a", "stopped by OSError: [Errno 5] b"]


def test_a_kubernetes_that_is_too_old_is_misuse_too(caplog: pytest.LogCaptureFixture) -> None:
    assert lifecycle.run(failing(UnsupportedRelease("the kubelet is v1.27.1"))) == lifecycle.MISUSED
    assert caplog.messages == ["stopped by UnsupportedRelease: the kubelet is v1.27.1"]


def test_settings_that_cannot_work_are_misuse(caplog: pytest.LogCaptureFixture) -> None:
    assert lifecycle.run(failing(SettingsInvalid("s.yaml: no"))) == lifecycle.MISUSED
    assert caplog.messages == ["stopped by SettingsInvalid: s.yaml: no"]
    assert caplog.records[0].exc_info is None
