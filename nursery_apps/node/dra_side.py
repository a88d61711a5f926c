"""What differs between structured and classic DRA, as the parts see it: the two sides of `nursery_apps.node.parts.Parts`.

`nursery_apps.node.structured` and `nursery_apps.node.classic.side` keep these promises; everything else of the plugin knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import trio

from dra.decommissioning import Stage
from dra.devices import Inventory
from dra.health.telling import Opinion
from dra.health.told import Told
from dra.names import BootId, NodeName, PoolName
from dra.settings import Publish
from dra.sharing_settings import Sharing
from dra.sriov_settings import Sriov
from nursery_apps import rpc
from nursery_apps.latest import Latest
from nursery_apps.node.allocations import Allocations
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimDesk
from nursery_apps.node.dra_kind import DraKind
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Offering
from nursery_apps.node.own_node import OwnNode
from nursery_apps.node.reconciler import ClaimLookup
from nursery_apps.node.reporter import Reporter
from nursery_apps.seams import Clock, KubeApi


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What either side stands on."""

    kube: KubeApi
    node: NodeName
    pool: PoolName
    boot_id: BootId
    journal: Journal
    inventory: Latest[Inventory]
    cards: Cards
    own_node: Latest[OwnNode | None]
    publish: Latest[Publish]
    sharing: Latest[tuple[Sharing, ...]]
    sriov: Latest[Sriov]
    """As the side means it."""
    opinion: Latest[Opinion]
    """Of the GPUs' health, and what the settings make of it."""
    health: Latest[Told]
    """The same in words, by device."""
    stage: Latest[Stage]
    """Of the driver's removal."""
    reporter: Reporter
    clock: Clock
    random: Callable[[], float]


class Side(Protocol):
    """One of the two, made."""

    @property
    def offering(self) -> Offering[Any]: ...

    @property
    def allocations(self) -> Allocations: ...

    @property
    def lookup(self) -> ClaimLookup: ...

    @property
    def ready(self) -> Mapping[str, Callable[[], str | None]]:
        """For the probes: why the side is not ready, by what is looked at."""

    @property
    def why_behind(self) -> str | None:
        """Why what is known of the API server may be out of date; None while it is not."""

    @property
    def announces(self) -> tuple[str, ...]:
        """Services, as registration names them."""

    def routes(self, desk: ClaimDesk) -> list[rpc.Route]:
        """What the kubelet calls."""

    def on_get_info(self) -> None:
        """The kubelet asks who we are: it may have been upgraded, and the API server with it."""

    async def support(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """What claims in work still need when intake has stopped; until cancelled."""

    async def publish(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell the cluster what there is; until cancelled."""

    def published(self) -> Mapping[str, Any]:
        """How far that is, as `nursery_apps.metrics.Metrics.snapshot` wants it."""


class SideKind(Protocol):
    """One of the two, to be made."""

    kind: DraKind
    driver: str
    """Its name."""
    takes_back: bool
    """Whether claims of a prepare that failed are let go at once."""

    def sriov(self, settings: Sriov) -> Sriov:
        """What the settings mean there."""

    def __call__(self, ground: Ground) -> Side: ...
