"""Random histories of a classic cluster: pods, taints, dying plugins and controllers, an API server with faults; what must always hold, and
what must come true in the end. The scheduler is the test's: it asks, selects, binds, and asks for the end of allocations in its way."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dra.classic.inventory import GpuAllocationState
from nursery_apps.controller.leadership import Fence
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster, gpu, vf
from tests.fakes.classic_pods import KINDS, ClassicPods, check_nothing_is_given_twice
from tests.fakes.kube_api import ERRORS, Json

EXAMPLES = int(os.environ.get("RANDOM_CLASSIC", "60"))
"""More for a long look: RANDOM_CLASSIC=3000 tools/test tests/scenarios/test_classic_random.py -n 0"""
NODES: dict[str, list[Json]] = {
    "n1": [gpu(1), gpu(2), gpu(3, model="0x4626", memory=0, maxvfs=0, name="Iris Xe", quotas="none")],
    "n2": [gpu(1), gpu(2), vf(2, 0), vf(2, 1)],
    "n3": [gpu(1, memory=4096, maxvfs=0), gpu(2, model="0xe211", memory=24480, maxvfs=4, quotas="none", name="B60")],
}

kinds, nodes, cards = st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(NODES)), st.integers(0, 1)
actions = st.one_of(
    st.tuples(st.just("pod"), st.lists(kinds, min_size=1, max_size=4)),
    st.tuples(st.just("pod"), st.lists(kinds, min_size=1, max_size=2)),
    st.tuples(st.just("immediate"), kinds),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("taint"), nodes, cards, st.booleans()),
    st.tuples(st.just("unplug"), nodes, cards),
    st.tuples(st.just("plug"), nodes),
    st.tuples(st.just("plugin"), nodes, st.booleans()),
    st.tuples(st.just("fault"), st.sampled_from(["get", "patch", "list", "watch"]), st.sampled_from(range(len(ERRORS)))),
    st.tuples(st.just("lose"), st.booleans()),
    st.tuples(st.just("controller"), st.floats(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.5, 5.0, 70.0])),
)


class World:
    def __init__(self) -> None:
        self.cluster = ClassicCluster()
        for name, devices in NODES.items():
            self.cluster.node(name, devices)
        self.pods = ClassicPods(self.cluster, NODES)
        self.states = {node: _state(node) for node in NODES}

    # --- what happens

    async def do(self, action: tuple[Any, ...], restart: trio.Event) -> None:
        match action:
            case ("pod", wanted):
                self.pods.pod(wanted)
            case ("immediate", kind):
                self.pods.immediate(kind)
            case ("end", number) if self.pods.pods:
                self.pods.end(sorted(self.pods.pods)[number % len(self.pods.pods)])
            case ("taint", node, card, healed):
                taints = {} if healed else {NODES[node][card]["uid"]: {"reasons": {"hot": True}}}
                self._change(node, lambda spec: spec.update(taintedDevices=taints))
            case ("unplug", node, card):
                gone = NODES[node][card]["uid"]
                self._change(
                    node,
                    lambda spec: spec.update(
                        allocatableDevices={u: d for u, d in spec["allocatableDevices"].items() if gone not in (u, d["parentuid"])}
                    ),
                )
            case ("plug", node):
                self._change(node, lambda spec: spec.update(allocatableDevices={one["uid"]: one for one in NODES[node]}))
            case ("plugin", node, lives):
                (self.cluster.beating.add if lives else self.cluster.beating.discard)(node)
            case ("fault", verb, number):
                self.cluster.api.failures.append((verb, ERRORS[number]))
            case ("lose", stored):
                self.cluster.lose_an_answer("resourceclaims", stored=stored)
            case ("wait", seconds):
                await trio.sleep(seconds)
            case ("controller", seconds):
                await trio.sleep(seconds / 100)
                restart.set()
        await trio.sleep(0.02)

    def _change(self, node: str, change: Any) -> None:
        body = self.cluster.api.objects["gpuallocationstates", NAMESPACE, node]
        spec = dict(body["spec"])
        change(spec)
        self.cluster.api.put("gpuallocationstates", {**body, "spec": spec}, namespace=NAMESPACE)

    def heal(self) -> None:
        self.cluster.api.failures.clear()
        self.cluster.api.on_store = lambda _plural, _body: None
        for node, devices in NODES.items():
            self.cluster.beating.add(node)
            self.cluster.node(node, devices)

    def check(self) -> None:
        check_nothing_is_given_twice(self.pods.handles(), self.states)


def _state(node: str) -> GpuAllocationState:
    body = {"metadata": {"name": node}, "spec": {"allocatableDevices": {one["uid"]: one for one in NODES[node]}}, "status": "Ready"}
    return msgspec.convert(body, GpuAllocationState)


async def _live(history: list[tuple[Any, ...]]) -> None:
    world = World()
    restart = trio.Event()

    async def controllers() -> None:
        nonlocal restart
        while True:
            restart = trio.Event()
            fence = Fence()
            fence.until = float("inf")
            async with world.cluster.allocating(fence):
                await restart.wait()

    async def scheduler() -> None:
        while True:
            world.pods.schedule()
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(controllers)
        nursery.start_soon(scheduler)
        for action in history:
            await world.do(action, restart)
            world.check()
        world.heal()
        await trio.sleep(400)
        world.check()
        pods = world.pods
        for pod, claims in sorted(pods.pods.items()):
            if pod not in pods.bound:
                assert (node := pods.room_for(claims, world.states)) is None, f"{pod} ({claims}) waits, and {node} has room for it"
        for pod in list(pods.pods):
            pods.end(pod)
        for claim in pods.loose:
            pods.drop(claim)
        await trio.sleep(200)
        left = [name for plural, _, name in world.cluster.api.objects if plural in ("resourceclaims", "podschedulingcontexts")]
        assert left == []
        nursery.cancel_scope.cancel()


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 60)
@given(st.lists(actions, max_size=25))
def test_whatever_happens_no_device_is_given_twice_whoever_can_run_runs_and_nothing_is_left(history: list[tuple[Any, ...]]) -> None:
    trio.run(_live, history, clock=trio.testing.MockClock(autojump_threshold=0))
