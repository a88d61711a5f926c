"""Pods whose selected node is full, and other nodes that are scarce: what the scheduler is told of them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from nursery_apps.controller.steering import ADVICE_SECONDS
from tests.fakes.classic_cluster import ClassicCluster, gpu, until

FREE = ("n1", "n2", "n3")
NODES = ["full", *FREE]


@pytest.fixture
def cluster(autojump_clock: MockClock) -> ClassicCluster:
    made = ClassicCluster()
    made.node("full", [])
    for name in FREE:
        made.node(name, [gpu(1)])
    return made


def refused(cluster: ClassicCluster, *pods: str) -> None:
    for pod in pods:
        cluster.claim(f"of-{pod}")
        cluster.pod(pod, {"gpu": f"of-{pod}"}, nodes=NODES, selected="full")


def left(cluster: ClassicCluster, pod: str) -> list[str]:
    """The nodes that a pod may go to."""
    answer = cluster.unsuitable(pod)
    return [name for name in NODES if answer is not None and name not in answer["gpu"]]


async def test_pods_that_wait_are_sent_to_different_nodes(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    refused(cluster, "a", "b", "c")
    async with cluster.allocating():
        await until(lambda: all(cluster.unsuitable(pod) for pod in "abc"))
        await trio.sleep(1)
    chosen = [left(cluster, pod) for pod in "abc"]
    assert sum(len(nodes) == 1 for nodes in chosen) >= 2 and len({tuple(nodes) for nodes in chosen}) == 3


async def test_where_nodes_are_plenty_a_pod_may_go_to_any(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    refused(cluster, "a")
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("a") is not None)
    assert left(cluster, "a") == [*FREE]


async def test_who_comes_first_gets_what_another_pod_was_sent_to(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    refused(cluster, "a", "b")
    async with cluster.allocating():
        await until(lambda: any(len(left(cluster, pod)) == 1 for pod in "ab"))
        sent = next(pod for pod in "ab" if len(left(cluster, pod)) == 1)
        [node] = left(cluster, sent)
        cluster.claim("of-c")
        cluster.pod("c", {"gpu": "of-c"}, nodes=[node], selected=node)
        await until(lambda: cluster.handle("of-c") is not None)
        await until(lambda: node not in left(cluster, sent))
    assert left(cluster, sent)


async def test_a_pod_that_does_not_come_may_go_to_any_again(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    refused(cluster, "a", "b", "c")
    async with cluster.allocating():
        await until(lambda: any(len(left(cluster, pod)) == 1 for pod in "abc"))
        sent = next(pod for pod in "abc" if len(left(cluster, pod)) == 1)
        await trio.sleep(ADVICE_SECONDS + 1)
        assert left(cluster, sent) == [*FREE]
