from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from dra.names import NodeName
from nursery_apps.node.own_node import OwnNode, OwnNodeKeeper
from tests.fakes.kube_api import FakeKubeApi, until


def node(uid: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "n1", "uid": uid, "labels": labels}, "status": {"nodeInfo": {"kubeletVersion": "v1.34.2"}}}


async def test_it_follows_labels_deletion_and_a_new_uid(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.put("nodes", node("u1", zone="a"))
    api.put("nodes", {"metadata": {"name": "n2", "uid": "other"}})
    keeper = OwnNodeKeeper(api, NodeName("n1"), lambda: 0.5)
    await nursery.start(keeper.run)
    assert keeper.node.value == OwnNode("u1", {"zone": "a"}, "v1.34.2")
    api.put("nodes", node("u1", zone="b"))
    await until(lambda: keeper.node.value is not None and keeper.node.value.labels == {"zone": "b"})
    api.remove("nodes", "n1")
    await until(lambda: keeper.node.value is not None and keeper.node.value.deleted)
    api.put("nodes", node("u2"))
    await until(lambda: keeper.node.value == OwnNode("u2", {}, "v1.34.2"))


async def test_a_node_that_does_not_exist_is_said_to_be_gone(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    keeper = OwnNodeKeeper(FakeKubeApi(), NodeName("n1"), lambda: 0.5)
    await nursery.start(keeper.run)
    assert keeper.node.value == OwnNode(deleted=True)
