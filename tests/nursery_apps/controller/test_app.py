"""The whole controller over a fake API server: it leads, allocates, answers probes, follows upgrades, and stops in good order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import trio
from trio.testing import MockClock

from dra.controller_settings import ControllerConfiguration, ControllerProbes
from nursery_apps.controller import app
from nursery_apps.controller.parts import LEASE, Parts
from nursery_apps.seams import ServedApi
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster, gpu, until
from tests.fakes.kube_api import ALL_PLURALS

T = TypeVar("T")


async def _in_place(work: Callable[[], T], /) -> T:
    return work()


def parts(cluster: ClassicCluster, identity: str) -> Parts:
    return Parts(
        namespace=NAMESPACE,
        identity=identity,
        settings=ControllerConfiguration(probes=ControllerProbes(port=0)),
        source=None,
        kube=cluster.api,
        run_blocking=_in_place,
        files=lambda _paths: _unasked(),
        clock=lambda: cluster.wall + trio.current_time(),
        random=lambda: 0.5,
    )


def _unasked() -> NoReturn:
    raise AssertionError("no file is named in these settings")


def beating(cluster: ClassicCluster) -> Callable[[], object]:
    async def beat() -> None:
        while True:
            cluster.heartbeat("n1")
            await trio.sleep(15)

    return beat


async def test_one_of_two_allocates_and_the_other_goes_on_when_it_stops(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1), gpu(2)])
    nursery.start_soon(beating(cluster))  # type: ignore[arg-type]
    stops, both = [trio.Event(), trio.Event()], [parts(cluster, "one"), parts(cluster, "two")]
    async with trio.open_nursery() as controllers:
        for each, stop in zip(both, stops, strict=True):
            await controllers.start(lambda task_status, each=each, stop=stop: app.run(each, stop=stop, task_status=task_status))
            await trio.sleep(12)
        cluster.claim("a")
        cluster.pod("pod-a", ["a"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.handle("a") is not None)
        assert b"intel_gpu_dra_leading 1.0" in both[0]._exposition() and b"intel_gpu_dra_claims_with_devices 1.0" in both[0]._exposition()
        assert b"intel_gpu_dra_leading 0.0" in both[1]._exposition()
        stops[0].set()
        await until(lambda: cluster.api.objects["leases", NAMESPACE, LEASE]["spec"]["holderIdentity"] == "two")
        cluster.claim("b")
        cluster.pod("pod-b", ["b"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.handle("b") is not None)
        stops[1].set()
    assert (cluster.devices("a"), cluster.devices("b")) == (["01:00.0"], ["02:00.0"])
    assert cluster.api.objects["leases", NAMESPACE, LEASE]["spec"]["holderIdentity"] == ""


async def test_it_allocates_no_longer_when_the_scheduler_does(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = ClassicCluster(server_version="v1.30.4")
    cluster.node("n1", [gpu(1)])
    nursery.start_soon(beating(cluster))  # type: ignore[arg-type]
    stop, one = trio.Event(), parts(cluster, "one")
    await nursery.start(lambda task_status: app.run(one, stop=stop, task_status=task_status))
    await until(lambda: b'nodes{ready="true"} 1.0' in one._exposition())
    cluster.api.offer = ServedApi("v1.31.0", (("v1alpha3", ALL_PLURALS),))
    await trio.sleep(301)
    assert b'nodes{ready="true"} 0.0' in one._exposition() and one.leadership.leading
    stop.set()


async def test_what_nobody_can_understand_is_said_in_an_event(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1)])
    cluster.claim("c", memory=1)
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    stop, one = trio.Event(), parts(cluster, "one")
    await nursery.start(lambda task_status: app.run(one, stop=stop, task_status=task_status))
    await until(lambda: any(kind == "events" for kind, _, _ in cluster.api.objects))
    said = {(body["involvedObject"]["kind"], body["reason"]) for body in cluster.api.of("events")}
    assert said >= {("ResourceClaim", "InvalidParameters"), ("Pod", "InvalidParameters")}
    stop.set()
