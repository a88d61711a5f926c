from __future__ import annotations

import contextlib

import trio
from trio.testing import MockClock

from dra.controller_settings import ApiRate
from nursery_apps.controller.kinds import LEASES, MERGE
from nursery_apps.controller.paced_api import PacedKubeApi
from nursery_apps.latest import Latest
from tests.fakes.kube_api import FakeKubeApi


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    paced = PacedKubeApi(api, Latest(ApiRate(per_second=10, burst=20)))
    began = trio.current_time()
    times = []
    for _ in range(60):
        await paced.served()
        times.append(trio.current_time() - began)
    assert times[19] < 0.2 and abs(times[-1] - 4.0) < 0.2
    await trio.sleep(100)
    began = trio.current_time()
    for _ in range(20):
        await paced.served()
    assert trio.current_time() - began < 0.2, "a rest gives the burst back, and no more than that"
    await paced.served()


async def test_a_new_rate_counts_from_the_next_call_on(autojump_clock: MockClock) -> None:
    rate = Latest(ApiRate(per_second=1, burst=1))
    paced = PacedKubeApi(FakeKubeApi(), rate)
    await paced.served()
    rate.set(ApiRate(per_second=1000, burst=1))
    await paced.served()
    began = trio.current_time()
    for _ in range(100):
        await paced.served()
    assert trio.current_time() - began < 0.2


async def test_every_verb_goes_through(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    paced = PacedKubeApi(api, Latest(ApiRate()))
    await paced.create(LEASES, {"metadata": {"name": "l"}, "spec": {}}, namespace="ns")
    await paced.patch(LEASES, "l", {"spec": {"holderIdentity": "me"}}, content_type=MERGE, namespace="ns")
    assert (await paced.get(LEASES, "l", namespace="ns")).spec.holder_identity == "me"
    version = (await paced.list(LEASES)).resource_version
    api.put("leases", {"metadata": {"name": "m"}, "spec": {}}, namespace="ns")
    async with contextlib.aclosing(paced.watch(LEASES, resource_version=version)) as events:
        assert (await anext(events)).type == "ADDED"
    await paced.delete(LEASES, "l", namespace="ns")
    assert [name for _, _, name in api.objects] == ["m"]
