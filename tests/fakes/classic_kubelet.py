"""A kubelet of 1.28 to 1.30 as far as claims go (pkg/kubelet/cm/dra): it keeps what it was told, unprepares only what it was told of, and
gives containers what the CDI files say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import combinations
from typing import TypeVar

import msgspec
import trio

from dra import discovery
from dra.classic import handle
from dra.classic.handle import Handle
from dra.classic.names import parse_uid
from dra.names import Bdf, ClaimUid
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.node.claim_desk import ClaimRef
from tests.fakes.claim_node import Disks
from tests.fakes.classic_cluster import ClassicCluster
from tests.fakes.classic_node import ClassicNode
from tools.simcluster import cdi_reader

Place = tuple[Bdf, int]
"""A card, and the number of a VF of it; 0 for the card itself."""
CALL_SECONDS = 45.0
AGAIN_SECONDS = 10.0
NO_ANSWER = "no answer"

T = TypeVar("T")
Verb = Callable[[list[ClaimRef], float], Awaitable[dict[ClaimUid, T]]]


class Got(msgspec.Struct, frozen=True):
    """What containers have of a claim."""

    handle: Handle
    places: frozenset[Place]


class _Pod(msgspec.Struct):
    claims: list[str]
    ending: trio.Event
    stop_seconds: float = 0.0


class ClassicKubelet:
    """`run` is the task, in one life of the plugin."""

    def __init__(
        self,
        cluster: ClassicCluster,
        kernel: SimKernel,
        disks: Disks,
        *,
        on_call: Callable[[], None],
        on_gone: Callable[[str], None],
    ) -> None:
        """
        Args:
            on_call: told when it is about to call the plugin.
            on_gone: told of pods whose claims are unprepared.
        """
        self._cluster, self._kernel, self._disks, self._on_call, self._on_gone = cluster, kernel, disks, on_call, on_gone
        self._pods: dict[str, _Pod] = {}
        self._prepared: dict[str, tuple[ClaimRef, tuple[str, ...]]] = {}
        """The checkpoint: claim -> what was asked, and CDI names."""
        self.running: dict[str, dict[str, Got]] = {}
        """What the containers of a pod have, by claim."""
        self._news = trio.Event()

    @property
    def pods(self) -> frozenset[str]:
        """Those that have something here, or are to have."""
        return frozenset(self._pods)

    def start(self, pod: str, claims: list[str]) -> None:
        self._pods[pod] = _Pod(claims, trio.Event())
        self._news.set()

    def end(self, pod: str, stop_seconds: float = 0.0) -> None:
        """`stop_seconds` is how long its containers take to stop."""
        self._pods[pod].stop_seconds = stop_seconds
        self._pods[pod].ending.set()

    def lose(self, card: Bdf) -> None:
        """A card is pulled out: containers that have something of it have it no more, and nobody tells the kubelet."""
        for claims in self.running.values():
            for claim, got in claims.items():
                claims[claim] = Got(got.handle, frozenset(place for place in got.places if place[0] != card))

    def check_everybody_is_alone(self) -> None:
        given = [(claim, got) for claims in self.running.values() for claim, got in claims.items()]
        for (one, has), (other, has_too) in combinations(given, 2):
            shared = has.handle.shared and has_too.handle.shared
            assert shared or not _clash(has.places, has_too.places), f"{one} and {other} run on the same: {has} {has_too}"

    def reboot(self) -> None:
        """No container is left, and whether a claim was prepared is asked anew."""
        self.running.clear()
        self._prepared = {claim: (ref, ()) for claim, (ref, _) in self._prepared.items()}

    async def run(self, plugin: ClassicNode) -> None:
        async with trio.open_nursery() as workers:
            begun: set[str] = set()
            while True:
                self._news = trio.Event()
                for pod in sorted(self._pods.keys() - begun):
                    begun.add(pod)
                    workers.start_soon(self._work, plugin, pod)
                await self._news.wait()

    async def _work(self, plugin: ClassicNode, name: str) -> None:
        pod = self._pods[name]
        while not pod.ending.is_set():
            async with trio.open_nursery() as either:
                either.start_soon(_cancel_when, pod.ending, either.cancel_scope)  # a pod that ends breaks off the call of its start
                if name not in self.running and not await self._start(plugin, name, pod):
                    await trio.sleep(AGAIN_SECONDS)
                    either.cancel_scope.cancel()
        await trio.sleep(pod.stop_seconds)
        self.running.pop(name, None)
        while not await self._unprepare(plugin, pod):  # noqa: ASYNC110 - it asks again, as a kubelet does
            await trio.sleep(AGAIN_SECONDS)
        del self._pods[name]
        self._on_gone(name)

    async def _start(self, plugin: ClassicNode, name: str, pod: _Pod) -> bool:
        refs = {}
        for claim in pod.claims:
            stored = self._cluster.api.objects.get(("resourceclaims", "default", claim), {})
            if not any(user["name"] == name for user in (stored.get("status") or {}).get("reservedFor") or ()):
                return False
            [only] = stored["status"]["allocation"]["resourceHandles"]
            refs[claim] = ClaimRef(ClaimUid(stored["metadata"]["uid"]), "default", claim, only["data"])
        asked = {claim: ref for claim, ref in refs.items() if not self._prepared.get(claim, (None, ()))[1]}
        answers = await self._call(plugin.desk.prepare, asked)
        for claim, ref in asked.items():
            answer = answers.get(ref.uid, NO_ANSWER)
            if isinstance(answer, str):
                return False  # and what was said of those after it is not kept
            self._prepared[claim] = ref, tuple(cdi_id for device in answer for cdi_id in device.cdi_ids)
        given = {}
        for claim, ref in refs.items():
            if (places := self._injected(self._prepared[claim][1])) is None:
                return False
            given[claim] = Got(handle.parse(ref.handle), places)
            assert places == places_of(given[claim].handle), f"{claim} of {name} got {places}"
        self.running[name] = given
        self.check_everybody_is_alone()
        return True

    async def _unprepare(self, plugin: ClassicNode, pod: _Pod) -> bool:
        asked = {claim: self._prepared[claim][0] for claim in pod.claims if claim in self._prepared}
        answers = await self._call(plugin.desk.unprepare, asked)
        for claim, ref in asked.items():
            if answers.get(ref.uid, NO_ANSWER) is not None:
                return False
            del self._prepared[claim]
        return True

    async def _call(self, verb: Verb[T], asked: dict[str, ClaimRef]) -> dict[ClaimUid, T]:
        self._on_call()
        try:
            return await verb(list(asked.values()), CALL_SECONDS)
        except trio.BrokenResourceError:  # the plugin is going down, and the connection with it
            return {}

    def _injected(self, names: tuple[str, ...]) -> frozenset[Place] | None:
        """What the device nodes of these names belong to, by what the kernel says; None: the runtime refuses a name."""
        devices = {}
        for file in self._disks.cdi.values():
            spec = cdi_reader.parse(file)
            devices |= {f"{spec['kind']}={one['name']}": one["containerEdits"]["deviceNodes"] for one in spec["devices"]}
        owners = {
            (node.major, node.minor): (gpu.parent or gpu.bdf, gpu.vf_index or 0)
            for gpu in discovery.scan(self._kernel).gpus
            for node in (gpu.card_node, gpu.render_node)
            if node is not None
        }
        if not devices.keys() >= set(names):
            return None
        nodes = [(node["major"], node["minor"]) for name in names for node in devices[name]]
        return frozenset(owners[node] for node in nodes) if owners.keys() >= set(nodes) else None


def places_of(wanted: Handle) -> frozenset[Place]:
    found = set()
    for part in wanted.parts:
        card, _ = parse_uid(part.parent or part.uid)
        found |= {(card, number) for number in part.vfs or (part.index,)}
    return frozenset(found)


def _clash(some: frozenset[Place], others: frozenset[Place]) -> bool:
    """A card and its VFs are one thing."""
    return any(card == card_too and (vf == vf_too or 0 in (vf, vf_too)) for card, vf in some for card_too, vf_too in others)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
