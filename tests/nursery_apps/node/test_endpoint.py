"""The DRA socket stays reachable under its name, on real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from dra import backoff
from nursery_apps import rpc
from nursery_apps.edges.file_watch import InotifyWatch
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.node import endpoint


async def echo(asked: bytes, call: rpc.Call) -> bytes:
    return asked


ROUTES = [rpc.Unary("/echo.Echo/Echo", bytes, bytes, echo)]


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        delays = partial(backoff.delays, lambda: 0.5, first_seconds=0.01, cap_seconds=0.05)
        await nursery.start(partial(endpoint.serve, RpcServer(grace_seconds=0.1), InotifyWatch(), ROUTES, str(path), delays=delays))
        yield
        nursery.cancel_scope.cancel()


async def connects(path: Path) -> None:
    """Wait until somebody accepts."""
    with trio.fail_after(5):
        while True:
            with contextlib.suppress(OSError):
                await (await trio.open_unix_socket(path)).aclose()
                return
            await trio.lowlevel.checkpoint()


async def test_a_socket_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "dra.sock"
    async with serving(path):
        await connects(path)
        path.unlink()
        await connects(path)
    assert not path.exists()


async def test_after_a_second_instance_came_and_went_the_first_serves_again(tmp_path: Path) -> None:
    path = tmp_path / "dra.sock"
    async with serving(path):
        async with serving(path):
            await connects(path)
        await connects(path)


async def test_a_path_that_cannot_be_bound_at_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dra.sock").mkdir()
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with serving(tmp_path / "dra.sock"):
            pass
