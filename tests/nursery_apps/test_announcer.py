from __future__ import annotations

import warnings

import msgspec
import trio
from trio.testing import MockClock

from dra.kube.events import Regarding, Weight
from dra.names import NodeName
from nursery_apps.announcer import BURST, SPACING_SECONDS, WAITING, Announcer
from nursery_apps.seams import Forbidden
from tests.fakes.kube_api import FakeKubeApi, until

CLAIM = Regarding("ResourceClaim", "my-claim", "team-a", "claim-uid", "resource.k8s.io/v1")
NODE = Regarding("Node", "n1", uid="n1")


async def running(nursery: trio.Nursery, api: FakeKubeApi) -> Announcer:
    announcer = Announcer(api, component="gpu.intel.com", node=NodeName("n1"), clock=lambda: 1_800_000_000 + trio.current_time())
    await nursery.start(announcer.run)
    return announcer


async def test_an_event_lands_beside_its_object_and_the_official_client_reads_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    announcer = await running(nursery, api)
    announcer.announce(CLAIM, Weight.WARNING, "PrepareFailed", "GPU 0000:03:00.0 is wedged")
    announcer.announce(NODE, Weight.NORMAL, "Started", "x" * 5000)
    await until(lambda: len(api.of("events")) == 2)
    on_node, on_claim = sorted(api.of("events"), key=lambda one: one["metadata"]["namespace"])
    assert (on_claim["metadata"]["namespace"], on_node["metadata"]["namespace"]) == ("team-a", "default")
    assert on_claim["involvedObject"] == {
        "kind": "ResourceClaim",
        "name": "my-claim",
        "namespace": "team-a",
        "uid": "claim-uid",
        "apiVersion": "resource.k8s.io/v1",
    }
    assert (on_claim["reason"], on_claim["type"], on_claim["count"]) == ("PrepareFailed", "Warning", 1)
    assert len(on_node["message"]) == 1024
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kubernetes import client

        model = client.ApiClient().deserialize(msgspec.json.encode(on_claim).decode(), "CoreV1Event", "application/json")
    assert model.first_timestamp.year == 2027


async def test_a_storm_is_one_event_with_a_count(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    announcer = await running(nursery, api)
    for number in range(100):
        announcer.announce(CLAIM, Weight.WARNING, "PrepareFailed", f"try {number}")
        await trio.sleep(1)
    await until(lambda: api.of("events")[0]["count"] == 100)
    [event] = api.of("events")
    assert event["message"] == "try 99" and event["lastTimestamp"] > event["firstTimestamp"]
    assert len(api.calls) <= 3


async def test_many_things_at_once_are_written_one_after_the_other(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    announcer = await running(nursery, api)
    began = trio.current_time()
    for number in range(200):
        announcer.announce(Regarding("Pod", f"p{number}", "ns", f"uid-{number}"), Weight.WARNING, "NoSuitableNode", "none")
    await until(lambda: len(api.of("events")) >= BURST)
    assert trio.current_time() - began < 1, "a few are not held up"
    await trio.sleep(10)
    assert len(api.of("events")) <= BURST + 10 / SPACING_SECONDS + 1
    # What comes meanwhile is counted into the write that waits.
    for number in range(200):
        announcer.announce(Regarding("Pod", f"p{number}", "ns", f"uid-{number}"), Weight.WARNING, "NoSuitableNode", "none")
    await until(lambda: len(api.of("events")) == 200)
    await until(lambda: sum(one["count"] for one in api.of("events")) == 400)
    assert announcer.dropped == 0


async def test_an_event_the_server_forgot_is_written_anew(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    announcer = await running(nursery, api)
    announcer.announce(NODE, Weight.NORMAL, "R", "one")
    await until(lambda: bool(api.of("events")))
    api.remove("events", api.of("events")[0]["metadata"]["name"], namespace="default")
    announcer.announce(NODE, Weight.NORMAL, "R", "two")
    await until(lambda: bool(api.of("events")))
    assert (api.of("events")[0]["message"], api.of("events")[0]["count"]) == ("two", 1)


async def test_callers_never_wait_and_the_oldest_goes(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    announcer = Announcer(api, component="c", node=NodeName("n1"), clock=lambda: 0.0)
    for number in range(WAITING + 10):
        announcer.announce(NODE, Weight.NORMAL, f"R{number}", "x")
    assert announcer.dropped == 10
    async with trio.open_nursery() as nursery:
        await nursery.start(announcer.run)
        await until(lambda: announcer.written == WAITING)
        nursery.cancel_scope.cancel()
    assert min(int(one["reason"][1:]) for one in api.of("events")) == 10


async def test_a_server_that_refuses_changes_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures += [("create", Forbidden(403, "Forbidden", "no events for you"))] * 2
    announcer = await running(nursery, api)
    for reason in ("A", "B", "C"):
        announcer.announce(NODE, Weight.NORMAL, reason, "x")
    await until(lambda: announcer.written == 1)
    assert announcer.dropped == 2
