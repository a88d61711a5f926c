"""A machine of a classic cluster: kernel, disks and kubelet, and on them the node plugin's lives, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import trio

from dra.names import NodeName, PoolName
from nursery_apps.latest import Latest
from nursery_apps.node.classic.heartbeat import Heartbeat
from nursery_apps.node.classic.state import StatePublisher
from nursery_apps.node.own_node import OwnNode
from tests.fakes.at_step import after_steps
from tests.fakes.claim_node import Disks, call_in_place
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster
from tests.fakes.classic_kubelet import ClassicKubelet
from tests.fakes.classic_node import ClassicNode
from tests.fakes.cut_kernel import CutKernel
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.state_dir import Power, PowerCut

T = TypeVar("T")


class ClassicMachine:
    """`run` is the task."""

    def __init__(self, name: str, cluster: ClassicCluster, kernel: CutKernel, *, slowness: float, on_gone: Callable[[str], None]) -> None:
        """
        Args:
            slowness: how much of the time that it may take a call into the kernel takes before its work, and after it.
            on_gone: told of pods whose claims are unprepared.
        """
        self.name, self.cluster, self.kernel, self._slowness = name, cluster, kernel, slowness
        self.disks = Disks()
        self.kubelet = ClassicKubelet(cluster, kernel, self.disks, on_call=self._called, on_gone=on_gone)
        self.plugin: ClassicNode | None = None
        self._power = Power()
        self._life = trio.CancelScope()
        self._stop = trio.Event()
        self._back_in_seconds = 0.0
        self._at_step = 0
        self._end: Callable[[], None] = lambda: None
        self._back = trio.Event()
        self._boots = 1
        self._on_boot: Callable[[], None] | None = None

    # --- how lives end

    def kill(self, step: int, back_in_seconds: float) -> None:
        """So many steps of Trio's scheduler after the kubelet's next call."""
        self._at_step, self._end = step, partial(self._die, back_in_seconds)

    def reboot(self, step: int, on_boot: Callable[[], None]) -> None:
        """The power goes, likewise. `on_boot` sees to it that the machine has the cards it is to have."""
        self._at_step, self._end = step, partial(self._lose_power, on_boot)

    def kill_at_write(self, point: int, back_in_seconds: float) -> None:
        """Before, in or after a write to disk or kernel, so many points from now."""
        self._back_in_seconds = back_in_seconds
        self._power.cut_at = self._power.points + point

    def stop(self, back_in_seconds: float) -> None:
        """As SIGTERM does."""
        self._back_in_seconds = back_in_seconds
        self._stop.set()

    def heal(self) -> None:
        """Whatever the plugin waits for to be started again, it is over, and it is not to die any more."""
        self._at_step, self._power.cut_at = 0, None
        self._back.set()

    def _called(self) -> None:
        if self._at_step:
            after_steps(self._at_step, self._end)
            self._at_step = 0

    def _lose_power(self, on_boot: Callable[[], None]) -> None:
        self._on_boot = on_boot
        self._die(30)

    def _die(self, back_in_seconds: float) -> None:
        """From now on the plugin does nothing more, to disks, kernel and API server."""
        self._back_in_seconds = back_in_seconds
        self._power.off = True
        self._life.cancel()

    # --- lives

    async def run(self) -> None:
        while True:
            self._power, self._life, self._stop, self._back = Power(), trio.CancelScope(), trio.Event(), trio.Event()
            self.kernel.power = self._power
            try:
                with self._life:
                    await self._live()
            except* PowerCut:
                pass
            self.plugin = None
            if self._on_boot is not None:
                self._boots += 1
                self.kernel.reboot(f"{self._boots:08}-0000-4000-8000-000000000000")
                self.disks.reboot()
                self.kubelet.reboot()
                self._on_boot()
                self._on_boot = None
            with trio.move_on_after(self._back_in_seconds):
                await self._back.wait()

    async def _live(self) -> None:
        line = cast(Any, _Line(self.cluster.api, self._power))
        plugin = ClassicNode(
            {},
            server=line,
            kernel=self.kernel,
            disks=self.disks,
            power=self._power,
            boot=f"boot-{self._boots}",
            name=PoolName(self.name),
            call=self._unhurried,
        )
        node = Latest[OwnNode | None](OwnNode(f"uid-of-{self.name}"))
        publisher = StatePublisher(
            line, NodeName(self.name), NAMESPACE, node=node, desired=plugin.offering.desired, take_over=_nothing, random=_half
        )
        heartbeat = Heartbeat(line, NodeName(self.name), NAMESPACE, holder="plugin", node=node, clock=self._clock, random=_half)
        async with plugin.running(reconcile=True), trio.open_nursery() as nursery:
            self.plugin = plugin
            await nursery.start(publisher.run)
            nursery.start_soon(heartbeat.run)
            nursery.start_soon(self.kubelet.run, plugin)
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _unhurried(self, work: Callable[[], T], /, *, seconds: float) -> T:
        """KernelCall that takes time: much can happen before and after its work."""
        await trio.sleep(seconds * self._slowness)
        done = await call_in_place(work, seconds=seconds)
        await trio.sleep(seconds * self._slowness)
        return done

    def _clock(self) -> float:
        self.cluster.wall += 1
        return self.cluster.wall


class _Line:
    """A program's way to the API server: nothing is sent any more once its power is off."""

    def __init__(self, api: FakeKubeApi, power: Power) -> None:
        self._api, self._power = api, power

    def __getattr__(self, verb: str) -> Any:
        if self._power.off:
            raise PowerCut
        return getattr(self._api, verb)


async def _nothing(_stored: dict[str, Any]) -> None:
    """The original driver never ran here."""


def _half() -> float:
    return 0.5
