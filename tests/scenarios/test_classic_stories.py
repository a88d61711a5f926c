"""Whole stories on Kubernetes 1.28 to 1.30: the shipped controller and node plugins as processes, beside an embedded control plane whose
scheduler negotiates and whose kubelets are of that age."""

from __future__ import annotations

import pytest
import trio

from tests.fakes.classic_programs import Programs, programs
from tools.simcluster.kinds import LEASE

pytestmark = pytest.mark.slow


async def started(here: Programs, *controllers: str, nodes: tuple[str, ...] = ("node1", "node2")) -> None:
    for name in controllers or ("controller",):
        await here.start_controller(name)
    for node in nodes:
        await here.start_plugin(node)
    await here.wait_ready(*nodes)


async def run(here: Programs, pod: str, *claims: str) -> list[str]:
    here.pod(pod, *claims)
    await here.cluster.wait_pod(pod, deadline=30)
    return here.nodes_in(pod)


async def gone(here: Programs, *pods: str) -> None:
    for pod in pods:
        here.cluster.delete_pod(pod)
    for pod in pods:
        await here.cluster.wait_pod_gone(pod, deadline=30)


def delete(here: Programs, *claims: str) -> None:
    from tools.simcluster.kinds import CLAIM

    for claim in claims:
        here.cluster.registry.delete(CLAIM, claim, "default")


@pytest.mark.parametrize("release", ["1.28", "1.29", "1.30"])
async def test_every_kind_of_claim_is_served_on_every_release_and_nothing_is_left(release: str) -> None:
    async with programs(release) as here:
        await started(here)
        here.claim("one")
        here.claim("two", count=2)
        assert len(await run(here, "exclusive", "one", "two")) == 6
        here.claim("share-a", of_class="intel-gpu-shared", memory=4000, millicores=300)
        here.claim("share-b", of_class="intel-gpu-shared", memory=4000, millicores=300)
        assert len(await run(here, "sharing-a", "share-a")) == len(await run(here, "sharing-b", "share-b")) == 2
        here.claim("vf-a", type="vf", memory=3500)
        here.claim("vf-b", type="vf", memory=3500)
        a, b = await run(here, "virtual-a", "vf-a"), await run(here, "virtual-b", "vf-b")
        assert (len(a) == len(b) == 2 and a != b) or here.handle("vf-a").node != here.handle("vf-b").node  # type: ignore[union-attr]
        here.claim("look", of_class="intel-gpu-monitor")
        assert len(await run(here, "monitor", "look")) >= 16
        here.claim("soon", mode="Immediate")
        assert len(await run(here, "late", "soon")) == 2
        here.claim("inline", template=True, shareable=True)
        here.cluster.create_pod("generated", templates={"gpu": "inline"})
        await here.cluster.wait_pod("generated", deadline=30)
        await gone(here, "exclusive", "sharing-a", "sharing-b", "virtual-a", "virtual-b", "monitor", "late", "generated")
        delete(here, "one", "two", "share-a", "share-b", "vf-a", "vf-b", "look", "soon")
        await here.wait_no_claims()
        for node in ("node1", "node2"):
            assert await here.terminate(node) == 0
            assert here.state(node)["status"] == "NotReady"


async def test_a_claim_shared_by_pods_is_released_with_the_last_of_them() -> None:
    async with programs() as here:
        await started(here)
        here.claim("ours", shareable=True)
        first, second = await run(here, "first", "ours"), await run(here, "second", "ours")
        assert first == second
        await gone(here, "first")
        assert here.handle("ours") is not None
        await gone(here, "second")
        with trio.fail_after(30):
            while here.handle("ours") is not None:
                await here.cluster.store.changed()


async def test_the_leader_is_killed_and_the_other_goes_on_within_20_seconds() -> None:
    async with programs() as here:
        await started(here, "a", "b")
        await here.cluster.wait(LEASE, lambda leases: any(x["metadata"]["name"] == "gpu-controller" for x in leases), deadline=20)
        lease = here.cluster.store.get(LEASE, "intel-gpu-resource-driver", "gpu-controller")
        assert lease is not None
        leader = lease["spec"]["holderIdentity"].rpartition("-")[0]
        here.claim("before")
        before = await run(here, "p", "before")
        await here.kill(leader)
        here.claim("after")
        here.pod("q", "after")
        began = trio.current_time()
        await here.cluster.wait_pod("q", deadline=25)
        assert trio.current_time() - began < 20
        if here.handle("before").node == here.handle("after").node:  # type: ignore[union-attr]
            assert set(before).isdisjoint(here.nodes_in("q"))


async def test_a_plugin_that_is_killed_comes_back_to_its_claims_and_vfs() -> None:
    async with programs(nodes=("node1",)) as here:
        await started(here, nodes=("node1",))
        devices = here.state("node1")["spec"]["allocatableDevices"]
        here.claim("vf-a", type="vf", memory=3500)
        here.claim("vf-b", type="vf", memory=3500)
        before = await run(here, "a", "vf-a")
        await here.kill("node1")
        await here.start_plugin("node1")
        await here.wait_ready("node1")
        after = await run(here, "b", "vf-b")
        assert here.nodes_in("a") == before and set(before).isdisjoint(after)
        await gone(here, "a", "b")
        delete(here, "vf-a", "vf-b")
        await here.wait_no_claims()
        with trio.fail_after(30):
            while here.state("node1")["spec"]["allocatableDevices"] != devices:
                await here.cluster.store.changed()


async def test_a_node_that_stopped_gets_nothing_and_the_pod_goes_elsewhere() -> None:
    async with programs() as here:
        await started(here)
        assert await here.terminate("node1") == 0
        for number in range(3):
            here.claim(f"c{number}")
            await run(here, f"p{number}", f"c{number}")
            found = here.handle(f"c{number}")
            assert found is not None and found.node == "node2"


async def test_a_full_cluster_lets_pods_wait_and_serves_them_when_others_go() -> None:
    async with programs(nodes=("node1",)) as here:
        await started(here, nodes=("node1",))
        here.claim("all", count=7)
        await run(here, "full", "all")
        here.claim("next")
        here.pod("waiting", "next")
        await here.cluster.wait_event("waiting", "NoSuitableNode", deadline=20)
        await gone(here, "full")
        await here.cluster.wait_pod("waiting", deadline=30)
