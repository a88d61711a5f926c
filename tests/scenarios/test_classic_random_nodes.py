"""Random histories of a whole classic cluster: the controller and node plugins as they are shipped, on simulated kernels, beside kubelets
and a scheduler. Programs die at any step, machines reboot, cards come and go, the kernel and the API server refuse.

What must always hold is checked after every action; what must come true in the end, once the faults are over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import discovery
from dra.classic.handle import profiles_of
from dra.classic.inventory import READY, GpuAllocationState
from dra.classic.names import parse_uid
from dra.devices import Gpu, State
from dra.names import Bdf
from nursery_apps.controller.leadership import Fence
from tests.fakes import machines
from tests.fakes.at_step import after_steps
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster
from tests.fakes.classic_kubelet import Got
from tests.fakes.classic_machine import ClassicMachine
from tests.fakes.classic_pods import KINDS, ClassicPods, check_nothing_is_given_twice
from tests.fakes.cut_kernel import CutKernel
from tests.fakes.kube_api import ERRORS

EXAMPLES = int(os.environ.get("RANDOM_CLASSIC_NODES", "15"))
"""More for a long look: RANDOM_CLASSIC_NODES=500 tools/test tests/scenarios/test_classic_random_nodes.py -n 0"""
MACHINES = {
    "n1": ("server-8x-flex170", ("0000:4d:00.0", "0000:5d:00.0")),
    "n2": ("server-4x-b60-4vf", ("0000:18:00.0",)),
    "n3": ("server-2x-b60-debugfs", ("0000:18:00.0",)),
}
"""Document and cards."""
ADMINISTRATORS = ("n2", "0000:18:00.0")
"""The card that an administrator has cut."""
SETTLED_SECONDS = 2500.0
"""An orphan is released after 600 s, found in a round that takes as long, and some pods wait for another's."""

nodes, steps = st.sampled_from(sorted(MACHINES)), st.integers(1, 60) | st.integers(1, 300)
cards = st.sampled_from([(node, card) for node, (_, has) in sorted(MACHINES.items()) for card in has if (node, card) != ADMINISTRATORS])
away = st.sampled_from([0.0, 20.0, 100.0, 700.0])
kinds = st.sampled_from(["gpu", "vf", "any-vf", "vfs"]) | st.sampled_from(sorted(KINDS.keys() - {"monitor"}))
stopping = st.sampled_from([0.0, 1.0, 40.0])
everyday = st.one_of(
    st.tuples(st.just("pod"), st.lists(kinds, min_size=1, max_size=3)),
    st.tuples(st.just("pod"), st.lists(kinds, min_size=1, max_size=2)),
    st.tuples(st.just("immediate"), kinds),
    st.tuples(st.just("end"), st.integers(0, 20), stopping, st.booleans()),
    st.tuples(st.just("force"), st.integers(0, 20), stopping, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1.0, 3.0, 12.0])),
)
trouble = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([70.0, 650.0])),
    st.tuples(st.just("delete claims"), st.integers(0, 20)),
    st.tuples(st.just("kill"), nodes, steps, away),
    st.tuples(st.just("kill at a write"), nodes, st.integers(0, 60), away),
    st.tuples(st.just("stop"), nodes, away),
    st.tuples(st.just("reboot"), nodes, steps),
    st.tuples(st.just("kill the controller"), steps),
    st.tuples(st.just("taint"), cards, st.booleans()),
    st.tuples(st.just("unplug"), cards),
    st.tuples(st.just("plug"), cards),
    st.tuples(st.just("refuse"), cards, st.sampled_from(["sriov_numvfs", "lmem_quota"]), st.sampled_from([5, 16, 28])),
    st.tuples(st.just("lose"), st.sampled_from(["resourceclaims", "gpuallocationstates", "podschedulingcontexts"]), st.booleans()),
    st.tuples(st.just("fault"), st.sampled_from(["get", "patch", "list", "watch", "create"]), st.sampled_from(range(len(ERRORS)))),
)
actions = st.integers(0, 3).flatmap(lambda number: trouble if number == 3 else everyday)


class World:
    def __init__(self, slowness: float) -> None:
        self.cluster = ClassicCluster()
        self.pods = ClassicPods(self.cluster, MACHINES)
        self.machines = {
            name: ClassicMachine(name, self.cluster, CutKernel.load(machines.document(document)), slowness=slowness, on_gone=self._gone)
            for name, (document, _) in MACHINES.items()
        }
        for name in MACHINES:
            self._leave_only_its_cards(name)
        self.idle: dict[str, GpuAllocationState] = {}
        self.fresh = {name: self._traces(name) for name in MACHINES}
        self.controller = trio.CancelScope()
        self.kill_controller_at = 0
        """So many steps of Trio's scheduler after Kubernetes' next question; 0: it lives."""

    # --- what happens

    async def do(self, action: tuple[Any, ...]) -> None:
        match action:
            case ("pod", wanted):
                self.pods.pod(wanted)
            case ("immediate", kind):
                self.pods.immediate(kind)
            case ("end", number, stop_seconds, replaced) if self.pods.pods:
                self.end(sorted(self.pods.pods)[number % len(self.pods.pods)], stop_seconds, replaced=replaced)
            case ("force", number, stop_seconds, replaced) if self.pods.bound:
                self.end(sorted(self.pods.bound)[number % len(self.pods.bound)], stop_seconds, replaced=replaced, by_force=True)
            case ("delete claims", number) if self.pods.bound:
                for claim in self.pods.pods[sorted(self.pods.bound)[number % len(self.pods.bound)]]:
                    self.cluster.delete_claim(claim)
            case ("wait", seconds):
                await trio.sleep(seconds)
            case ("kill", node, step, seconds):
                self.machines[node].kill(step, seconds)
            case ("kill at a write", node, point, seconds):
                self.machines[node].kill_at_write(point, seconds)
            case ("stop", node, seconds):
                self.machines[node].stop(seconds)
            case ("reboot", node, step):
                self.machines[node].reboot(step, partial(self._leave_only_its_cards, node))
            case ("kill the controller", step):
                self.kill_controller_at = step
            case ("taint", (node, card), healed):
                self._taint(node, {} if healed else {self._uid(node, card): {"reasons": {"hot": True}}})
            case ("unplug", (node, card)) if card in self._gpus(node):
                self.machines[node].kernel.unplug(card)
                self.machines[node].kubelet.lose(Bdf(card))
            case ("plug", (node, card)) if card not in self._gpus(node):
                self.machines[node].kernel.plug(card)
            case ("refuse", (node, card), file, errno):
                operation = "sriov" if file == "sriov_numvfs" else "write"
                self.machines[node].kernel.fail(f"*/{card}/*{file}", operation, errno)
            case ("lose", plural, stored):
                self.cluster.lose_an_answer(plural, stored=stored)
            case ("fault", verb, number):
                self.cluster.api.failures.append((verb, ERRORS[number]))
        await trio.sleep(0.02)

    def end(self, pod: str, stop_seconds: float = 0.0, *, replaced: bool = False, by_force: bool = False) -> None:
        if replaced:
            self.pods.pod([self.pods.of_kind[claim] for claim in self.pods.pods[pod]])
        home = self.machines[self.pods.bound[pod]] if pod in self.pods.bound else None
        if home is not None:
            home.kubelet.end(pod, stop_seconds)
        if home is None or by_force:
            self.pods.end(pod)

    def heal(self) -> None:
        self.cluster.api.failures.clear()
        self.cluster.api.on_store = lambda _plural, _body: None
        self.kill_controller_at = 0
        for name, machine in self.machines.items():
            machine.kernel.faults.clear()
            for card in MACHINES[name][1]:
                if card not in self._gpus(name):
                    machine.kernel.plug(card)
            self._taint(name, {})
            machine.heal()

    def _gone(self, pod: str) -> None:
        if pod in self.pods.pods:
            self.pods.end(pod)

    def _taint(self, node: str, taints: dict[str, Any]) -> None:
        body = self.cluster.api.objects["gpuallocationstates", NAMESPACE, node]
        self.cluster.api.put("gpuallocationstates", {**body, "spec": {**body["spec"], "taintedDevices": taints}}, namespace=NAMESPACE)

    def _leave_only_its_cards(self, node: str) -> None:
        document, has = MACHINES[node]
        for gpu in machines.expected(document):
            if gpu["kind"] == "pf" and gpu["bdf"] not in has:
                self.machines[node].kernel.unplug(gpu["bdf"])

    def _gpus(self, node: str) -> dict[Bdf, Gpu]:
        return dict(discovery.scan(self.machines[node].kernel).by_bdf())

    def _traces(self, node: str) -> list[tuple[Bdf, int, State]]:
        """What claims change of cards."""
        return [(gpu.bdf, gpu.vfs_now, gpu.state) for gpu in self._gpus(node).values()]

    def _uid(self, node: str, card: str) -> str:
        return next(uid for uid in self.idle[node].devices if uid.startswith(card))

    # --- the cluster

    async def controllers(self) -> None:
        while True:
            fence = Fence()
            fence.until = float("inf")
            with trio.CancelScope() as self.controller:
                async with self.cluster.allocating(fence):
                    await trio.sleep_forever()

    async def scheduler(self) -> None:
        while True:
            before, version = set(self.pods.bound), self.cluster.api.version
            self.pods.schedule()
            if self.kill_controller_at and self.cluster.api.version != version:
                after_steps(self.kill_controller_at, self.controller.cancel)
                self.kill_controller_at = 0
            for pod in sorted(self.pods.bound.keys() - before):
                self.machines[self.pods.bound[pod]].kubelet.start(pod, self.pods.pods[pod])
            if self.idle and self.cluster.api.version != version:
                self.check()
            await trio.sleep(0.5)

    def states(self) -> dict[str, GpuAllocationState]:
        """Of nodes that are ready."""
        stored = [msgspec.convert(body, GpuAllocationState) for body in self.cluster.api.of("gpuallocationstates")]
        return {state.metadata.name: state for state in stored if state.status == READY}

    # --- what must hold

    def check(self) -> None:
        handles = self.pods.handles()
        check_nothing_is_given_twice(handles, self.idle)
        for claim, found in handles.items():
            for part in found.parts:
                assert not part.parent or (found.node, parse_uid(part.parent)[0]) == ADMINISTRATORS, f"{claim} has a VF that goes: {part}"
        for name, machine in self.machines.items():
            for pod, claims in machine.kubelet.running.items():
                for claim, got in claims.items():
                    assert pod not in self.pods.bound or handles.get(claim) == got.handle, (
                        f"{claim} of {pod}, which runs, is not what it was"
                    )
                    self._check_cards(name, claim, got)
            machine.kubelet.check_everybody_is_alone()

    def _check_cards(self, node: str, claim: str, got: Got) -> None:
        for part in got.handle.parts:
            card, _ = parse_uid(part.uid)
            if part.vfs and any(place[0] == card for place in got.places):
                count = int(self.machines[node].kernel.read(f"sys/bus/pci/devices/{card}/sriov_numvfs"))
                assert count == len(profiles_of(part.layout)), f"{claim} runs on {part}, and the card has {count} VFs"

    # --- what must come true

    def waiting(self) -> list[str]:
        """Why not everybody who can run runs, or has what it asked for."""
        homeless = {pod: claims for pod, claims in self.pods.pods.items() if pod not in self.pods.bound}
        homeless |= {claim: [claim] for claim in self.pods.loose if self.cluster.handle(claim) is None}
        said = [
            f"{who} ({claims}) waits, and {room} has room for it"
            for who, claims in sorted(homeless.items())
            if (room := self.pods.room_for(claims, self.idle)) is not None
        ]
        starting = [(pod, home) for pod, home in sorted(self.pods.bound.items()) if pod not in self.machines[home].kubelet.running]
        return said + [f"{pod} ({self.pods.pods[pod]}) does not start on {home}" for pod, home in starting]

    def left(self) -> list[str]:
        """What is there still, when no pod is."""
        said = [name for plural, _, name in self.cluster.api.objects if plural in ("resourceclaims", "podschedulingcontexts")]
        for name, machine in self.machines.items():
            said += [f"{name}: pod {pod}" for pod in machine.kubelet.pods] + [f"{name}: {file}" for file in machine.disks.cdi]
            if machine.plugin is not None:
                ledger = machine.plugin.journal.ledger.value
                said += [f"{name}: record of {uid}" for uid in ledger.claims] + [f"{name}: {bdf} is cut" for bdf in ledger.carvings]
            if (now := self.states().get(name)) is None or now.devices != self.idle[name].devices:
                said.append(f"{name}: {now}")
        return said or [name for name in MACHINES if self._traces(name) != self.fresh[name]]


async def nothing(what: Callable[[], list[str]]) -> None:
    """Until there is none of it."""
    deadline = trio.current_time() + SETTLED_SECONDS
    while left := what():
        assert trio.current_time() < deadline, left
        await trio.sleep(5)


async def live(slowness: float, history: list[tuple[Any, ...]]) -> None:
    world = World(slowness)
    async with trio.open_nursery() as nursery:
        for machine in world.machines.values():
            nursery.start_soon(machine.run)
        await nothing(lambda: sorted(MACHINES.keys() - world.states().keys()))
        world.idle = world.states()
        nursery.start_soon(world.controllers)
        nursery.start_soon(world.scheduler)
        for action in history:
            await world.do(action)
            world.check()
        world.heal()
        await nothing(world.waiting)
        world.check()
        for pod in list(world.pods.pods):
            world.end(pod)
        for claim in world.pods.loose:
            world.pods.drop(claim)
        await nothing(world.left)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 15)
@given(st.sampled_from([0.0, 0.02, 0.1]), st.lists(actions, min_size=15, max_size=50))
def test_whatever_happens_pods_run_on_what_is_theirs_alone_whoever_can_run_runs_and_nothing_is_left(
    slowness: float, history: list[tuple[Any, ...]]
) -> None:
    trio.run(live, slowness, history, clock=trio.testing.MockClock(autojump_threshold=0))
