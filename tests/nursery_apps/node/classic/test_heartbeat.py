"""A Lease renewed for as long as the plugin lives."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dra.decommissioning import Stage
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.node.classic.heartbeat import Heartbeat
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import Unavailable
from tests.fakes.kube_api import FakeKubeApi, until

SPACE = "intel-gpu-resource-driver"
KEY = ("leases", SPACE, "gpu-plugin-n1")


def heartbeat(kube: FakeKubeApi, stage: Latest[Stage] | None = None) -> Heartbeat:
    node: Latest[OwnNode | None] = Latest(OwnNode("node-uid"))
    clock = lambda: 1_700_000_000.25 + trio.current_time()  # noqa: E731
    return Heartbeat(kube, NodeName("n1"), SPACE, holder="pod-1", node=node, clock=clock, random=lambda: 0.5, stage=stage)


async def test_a_node_that_is_clean_has_no_lease_and_gets_it_back(autojump_clock: MockClock) -> None:
    kube, stage = FakeKubeApi(), Latest(Stage.UNDECIDED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat(kube, stage).run)
        await trio.sleep(60)
        assert KEY not in kube.objects, "nothing is said before it is known what is left"
        stage.set(Stage.DRAINING)
        await until(lambda: KEY in kube.objects)
        stage.set(Stage.CLEAN)
        await until(lambda: KEY not in kube.objects, seconds=1)
        calls = len(kube.calls)
        await trio.sleep(600)
        assert len(kube.calls) == calls
        stage.set(Stage.IN_SERVICE)
        await until(lambda: KEY in kube.objects, seconds=1)
        nursery.cancel_scope.cancel()


async def test_it_beats_every_15_seconds(autojump_clock: MockClock) -> None:
    kube = FakeKubeApi()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat(kube).run)
        await until(lambda: KEY in kube.objects)
        lease = kube.objects[KEY]
        assert lease["metadata"]["labels"] == {"gpu.resource.intel.com/heartbeat": "true"}
        assert lease["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
        assert lease["spec"]["holderIdentity"] == "pod-1" and lease["spec"]["leaseDurationSeconds"] == 50
        first = lease["spec"]["renewTime"]
        assert first.startswith("2023-11-14T22:13:") and first.endswith("Z") and len(first) == 27
        before = len(kube.calls)
        await trio.sleep(150)
        assert kube.objects[KEY]["spec"]["renewTime"] > first
        assert len(kube.calls) - before == 10
        nursery.cancel_scope.cancel()


async def test_a_beat_that_fails_is_made_up_for_before_the_lease_runs_out(autojump_clock: MockClock) -> None:
    kube = FakeKubeApi()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat(kube).run)
        await until(lambda: KEY in kube.objects)
        kube.failures = [("patch", Unavailable(0, "Down", "down"))] * 3
        first = kube.objects[KEY]["spec"]["renewTime"]
        await until(lambda: kube.objects[KEY]["spec"]["renewTime"] != first, seconds=30)
        kube.remove("leases", "gpu-plugin-n1", namespace=SPACE)
        await until(lambda: KEY in kube.objects, seconds=30)
        nursery.cancel_scope.cancel()
