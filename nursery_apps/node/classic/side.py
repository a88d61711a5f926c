"""Classic DRA (kubelets up to 1.30): our controller allocates from GpuAllocationStates, and claims come with a handle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from dra import sriov_settings, takeover
from dra.classic import allocatable
from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.offer import Offer, Sight
from dra.sriov_settings import Sriov
from nursery_apps import rpc
from nursery_apps.node.claim_desk import ClaimDesk
from nursery_apps.node.classic import kubelet_services
from nursery_apps.node.classic.claims import ClassicClaims, HandleAllocations
from nursery_apps.node.classic.heartbeat import Heartbeat
from nursery_apps.node.classic.state import Devices, StatePublisher
from nursery_apps.node.dra_kind import DraKind
from nursery_apps.node.dra_side import Ground
from nursery_apps.node.kubelet_services import SUPPORTED_VERSIONS
from nursery_apps.node.offering import Offering


class ClassicKind:
    """Keeps the promise of `nursery_apps.node.dra_side.SideKind`."""

    kind = DraKind.CLASSIC
    driver = CLASSIC_DRIVER_NAME
    takes_back = True

    def __init__(self, namespace: str, holder: str) -> None:
        """
        Args:
            namespace: where GpuAllocationStates and Leases are.
            holder: tells this plugin from the next one on the node, for people.
        """
        self._namespace, self._holder = namespace, holder

    def sriov(self, settings: Sriov) -> Sriov:
        return sriov_settings.for_classic(settings)

    def __call__(self, ground: Ground) -> ClassicSide:
        return ClassicSide(ground, self._namespace, self._holder)


class ClassicSide:
    """Keeps the promises of `nursery_apps.node.dra_side.Side`."""

    def __init__(self, ground: Ground, namespace: str, holder: str) -> None:
        self._ground = ground
        self.offering: Offering[Devices] = Offering(
            self._desire,
            ground.cards.sight,
            ground.journal.ledger,
            ground.publish,
            ground.sharing,
            opinion=ground.opinion,
            on_tainted=ground.reporter.tainted,
            stage=ground.stage,
        )
        self.allocations = HandleAllocations(
            ground.kube, ground.node, namespace, inventory=ground.inventory, sriov=ground.sriov, random=ground.random
        )
        self.lookup = ClassicClaims(ground.kube, ground.node)
        self.publisher = StatePublisher(
            ground.kube,
            ground.node,
            namespace,
            node=ground.own_node,
            desired=self.offering.desired,
            take_over=self._take_over,
            random=ground.random,
            stage=ground.stage,
        )
        self.heartbeat = Heartbeat(
            ground.kube,
            ground.node,
            namespace,
            holder=holder,
            node=ground.own_node,
            clock=ground.clock,
            random=ground.random,
            stage=ground.stage,
        )

    @property
    def ready(self) -> Mapping[str, Callable[[], str | None]]:
        return {"GpuAllocationState": lambda: self.publisher.status.value.error}

    @property
    def why_behind(self) -> str | None:
        return self.publisher.why_behind

    @property
    def announces(self) -> tuple[str, ...]:
        return SUPPORTED_VERSIONS

    def routes(self, desk: ClaimDesk) -> list[rpc.Route]:
        return kubelet_services.routes(desk)

    def on_get_info(self) -> None:
        """Nothing of the API server is chosen here."""

    async def support(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()  # a prepare needs the handle and nothing else

    async def publish(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.publisher.run)
            nursery.start_soon(self.heartbeat.run)
            task_status.started()

    def published(self) -> Mapping[str, Any]:
        now = self.publisher.status.value
        return {
            "devices": now.devices,
            "slices": 0,
            "in_sync": now.in_sync,
            "withdrawn": 0,
            "not_published": 0,
            "dropped_fields": now.dropped,
            "slice_writes": now.writes,
        }

    def _desire(self, made: Offer, sight: Sight) -> Devices:
        return allocatable.allocatable(made, sight, on_demand=self._ground.sriov.value.mode == "on-demand")

    async def _take_over(self, stored: dict[str, Any]) -> None:
        claims = (stored.get("spec") or {}).get("preparedClaims")
        if not claims:
            return
        ground = self._ground
        imported = takeover.imported(claims, takeover.STATE, pool=ground.pool, boot_id=ground.boot_id, driver=CLASSIC_DRIVER_NAME)
        for sentence in imported.refused:
            ground.reporter.finding("TakeoverIncomplete", None, sentence)
        await ground.journal.commit(imported.adopt)
