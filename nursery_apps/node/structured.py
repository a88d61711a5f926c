"""Structured DRA (kubelets from 1.31 on): the scheduler allocates from ResourceSlices, and claims are read from the API server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from dra import offer, slices
from dra.kube.events import Weight
from dra.names import DRIVER_NAME
from dra.offer import Sight
from dra.slices import Desired
from dra.sriov_settings import Sriov
from nursery_apps import rpc
from nursery_apps.node import kubelet_services
from nursery_apps.node.alert_taints import AlertTaints
from nursery_apps.node.allocations import ApiAllocations
from nursery_apps.node.claim_desk import ClaimDesk
from nursery_apps.node.claim_lookup import StructuredClaims
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.claim_status import ClaimStatus
from nursery_apps.node.dra_kind import DraKind
from nursery_apps.node.dra_side import Ground
from nursery_apps.node.health import stream
from nursery_apps.node.health.stream import HealthStream
from nursery_apps.node.offering import Offering
from nursery_apps.node.publisher import Publisher
from nursery_apps.node.served_api import ServedApiKeeper


class StructuredKind:
    """Keeps the promise of `nursery_apps.node.dra_side.SideKind`."""

    kind = DraKind.STRUCTURED
    driver = DRIVER_NAME
    takes_back = False

    def __init__(self, namespace: str) -> None:
        """`namespace` is where alerts leave what is tainted, if anywhere."""
        self._namespace = namespace

    def sriov(self, settings: Sriov) -> Sriov:
        return settings if settings.mode == "fixed" else msgspec.structs.replace(settings, mode="off")

    def __call__(self, ground: Ground) -> StructuredSide:
        return StructuredSide(ground, self._namespace)


class StructuredSide:
    """Keeps the promises of `nursery_apps.node.dra_side.Side`."""

    def __init__(self, ground: Ground, namespace: str) -> None:
        self._ground = ground
        self.alerts = AlertTaints(ground.kube, ground.node, namespace=namespace, random=ground.random)
        self.served = ServedApiKeeper(ground.kube, ground.random)
        self.offering: Offering[Desired] = Offering(
            self._desire,
            ground.cards.sight,
            ground.journal.ledger,
            ground.publish,
            ground.sharing,
            alerted=self.alerts.tainted,
            opinion=ground.opinion,
            on_tainted=ground.reporter.tainted,
            stage=ground.stage,
        )
        self.reader = ClaimReader(ground.kube, self.served.claims, ground.random)
        self.allocations = ApiAllocations(self.reader, ground.inventory, self.offering.planned, ground.pool)
        self.lookup = StructuredClaims(ground.kube, self.served.claims, ground.pool)
        self.publisher = Publisher(
            ground.kube,
            ground.node,
            offer=self.served.offer,
            node=ground.own_node,
            desired=self.offering.desired,
            random=ground.random,
            on_not_served=self.served.poke,
            on_finding=lambda reason, text: ground.reporter.finding(reason, None, text),
            stage=ground.stage,
        )
        self.health = HealthStream(ground.health, ground.pool, ground.clock)
        self.claim_status = ClaimStatus(
            ground.kube,
            ground.node,
            served=self.served.offer,
            ledger=ground.journal.ledger,
            inventory=ground.inventory,
            health=ground.health,
            clock=ground.clock,
            random=ground.random,
        )

    @property
    def ready(self) -> Mapping[str, Callable[[], str | None]]:
        return {"API server": lambda: self.served.offer.value.why, "ResourceSlices": lambda: self.publisher.status.value.error}

    @property
    def why_behind(self) -> str | None:
        return self.publisher.why_behind

    @property
    def announces(self) -> tuple[str, ...]:
        return *kubelet_services.SUPPORTED_VERSIONS, *stream.SERVICES

    def routes(self, desk: ClaimDesk) -> list[rpc.Route]:
        return kubelet_services.routes(desk) + self.health.routes()

    def on_get_info(self) -> None:
        self.served.poke()

    async def support(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.reader.run)
            nursery.start_soon(self._tell_served)
            nursery.start_soon(self.served.run)
            nursery.start_soon(self.alerts.run)
            nursery.start_soon(self.claim_status.run)
            task_status.started()

    async def publish(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.publisher.run(task_status=task_status)

    def published(self) -> Mapping[str, Any]:
        now = self.publisher.status.value
        return {
            "devices": now.devices,
            "slices": now.slices,
            "in_sync": now.in_sync,
            "withdrawn": len(now.withdrawn),
            "not_published": len(now.not_published),
            "dropped_fields": len(now.dropped),
            "slice_writes": now.writes,
        }

    def _desire(self, made: offer.Offer, _sight: Sight) -> Desired:
        return slices.desired(
            self._ground.node, made.gpus, taints=made.taints, healthy=made.healthy, terms=made.terms, counters=made.counters
        )

    async def _tell_served(self) -> None:
        """An Event on the Node when DRA is off."""
        seen = -1
        while True:
            served = await self.served.offer.wait_newer(seen)
            seen = self.served.offer.version
            if served.why is not None and served.server_version:
                self._ground.reporter.node_event(Weight.WARNING, "DRANotServed", served.why)
