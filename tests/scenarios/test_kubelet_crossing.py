"""A kubelet that is upgraded from 1.30 to 1.31 under the shipped plugin: it stops in order, and the next start speaks the other DRA."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from dra.classic.names import CLASSIC_DRIVER_NAME
from tests.fakes import plugin_process
from tests.fakes.plugin_process import Node
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kinds import NODE, Json

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def classic() -> AsyncIterator[Node]:
    async with plugin_process.node("server-8x-flex170", kind=ClassicCluster, kubernetes="1.30") as here:
        yield here


def upgrade_kubelet(here: Node) -> None:
    node = here.cluster.registry.get(NODE, here.cluster.node, "")

    def upgrade(body: Json) -> None:
        body["status"]["nodeInfo"]["kubeletVersion"] = "v1.31.2"

    here.cluster.registry.amend(NODE, node, upgrade, subresource="status")


def sockets(here: Node) -> list[Path]:
    plugins = here.state.parent
    return [plugins / CLASSIC_DRIVER_NAME / "dra.sock", plugins.parent / "plugins_registry" / f"{CLASSIC_DRIVER_NAME}-reg.sock"]


async def test_the_plugin_stops_with_one_sentence_and_leaves_no_socket() -> None:
    async with classic() as here:
        plugin = await here.start(driver=CLASSIC_DRIVER_NAME)
        assert (here.state / "dra-kind").read_text() == "classic\n" and all(path.exists() for path in sockets(here))
        upgrade_kubelet(here)
        with trio.fail_after(20):
            assert await plugin.process.wait() == 0
        assert plugin.log.count("the kubelet is v1.31.2 now, which speaks structured DRA: stopping") == 1
        assert (here.state / "dra-kind").read_text() == "structured\n" and not any(path.exists() for path in sockets(here))
        assert os.listdir(here.state.parent / CLASSIC_DRIVER_NAME) == []


async def test_sockets_of_a_classic_plugin_that_was_killed_are_gone_after_the_upgrade() -> None:
    async with classic() as here:
        plugin = await here.start(driver=CLASSIC_DRIVER_NAME)
        await plugin.kill()
        assert all(path.exists() for path in sockets(here))
        upgrade_kubelet(here)
        await here.start()
        assert not any(path.exists() for path in sockets(here))
        assert "kubelet v1.31.2: structured DRA" in plugin.log
