"""The node plugin's parts, each made once and told of the others; and what of them is said to probes.

`__main__` brings the edges, `app` runs the tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from dra import kubelet_sockets, semver, settings_plan
from dra.kernel_tree import KernelTree
from dra.kube.events import Weight
from dra.kubelet_sockets import KubeletSockets
from dra.names import DRIVER_NAME, BootId, NodeName, PoolName
from dra.settings import NodePluginConfiguration, seconds
from nursery_apps import log as log_lines
from nursery_apps.latest import Latest
from nursery_apps.metrics import Metrics
from nursery_apps.node.announcer import Announcer
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.desk import Desk
from nursery_apps.node.inventory import InventoryKeeper
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Offering
from nursery_apps.node.own_node import OwnNodeKeeper
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.publisher import Publisher
from nursery_apps.node.reconciler import Reconciler
from nursery_apps.node.registration import DirectoryWatch, Registration, Standing
from nursery_apps.node.reporter import Reporter
from nursery_apps.node.served_api import ServedApiKeeper
from nursery_apps.probes import Probes
from nursery_apps.reload import Reloader, Result, SettingsSource
from nursery_apps.rpc import RpcListener
from nursery_apps.seams import Clock, DeviceEvents, KernelCall, KubeApi, RunBlocking, StateDir

log = logging.getLogger(__name__)

ROLLING_SINCE = (1, 33)
"""Kubelets from this release on keep several instances of one driver; earlier ones refuse or confuse the second."""
NODE_PATIENCE_SECONDS = 3.0
"""How long the start waits to learn the kubelet's release, which only matters for the sockets' names in a rolling update."""


class Parts:
    def __init__(
        self,
        *,
        node: NodeName,
        boot_id: BootId,
        kubelet_root: str,
        pod_uid: str | None,
        settings: NodePluginConfiguration,
        source: SettingsSource | None,
        tree: KernelTree,
        events: DeviceEvents,
        kube: KubeApi,
        listener: RpcListener,
        directory_watch: DirectoryWatch,
        state: StateDir,
        cdi_dir: StateDir,
        metadata_dir: StateDir,
        metadata_path: str,
        run_blocking: RunBlocking,
        kernel_call: KernelCall,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._node = node
        self._kubelet_root = kubelet_root
        self._pod_uid = pod_uid
        self.listener, self.directory_watch = listener, directory_watch
        self.run_blocking, self.clock, self.random = run_blocking, clock, random
        self.metrics = Metrics()
        self._rescan_seconds = Latest(seconds(settings.device_events.rescan_period))
        self._reconcile_seconds = Latest(seconds(settings.reconcile_period))
        self._publish = Latest(settings.publish)
        self._sriov = Latest(settings.sriov)
        self._sharing = Latest(settings.sharing)
        pool = PoolName(node)

        self.announcer = Announcer(kube, component=f"{DRIVER_NAME}/node-plugin", node=node, clock=clock)
        self.reporter = Reporter(node, self.announcer, self.metrics)
        self.journal = Journal(state, boot_id, run_blocking=run_blocking, on_commit=self.metrics.commit)
        self.inventory = InventoryKeeper(
            tree,
            events,
            call=kernel_call,
            rescan_seconds=self._rescan_seconds,
            on_scan=self.metrics.scan,
            on_wedged=self.reporter.wedged,
        )
        self.served = ServedApiKeeper(kube, random)
        self.own_node = OwnNodeKeeper(kube, node, random)
        self.cards = Cards(
            tree=tree,
            call=kernel_call,
            journal=self.journal,
            inventory=self.inventory.inventory,
            rescan=self.inventory.rescan,
            settings=self._sriov,
            node=self.own_node.node,
            boot_id=boot_id,
            on_step=self.metrics.card_step,
            on_fault=self.reporter.card_fault,
            on_plan=self.reporter.layout,
        )
        self.offering = Offering(
            node, self.cards.sight, self.journal.ledger, self._publish, self._sharing, on_tainted=self.reporter.tainted
        )
        self.reader = ClaimReader(kube, self.served.claims, random)
        self.publisher = Publisher(
            kube,
            node,
            offer=self.served.offer,
            node=self.own_node.node,
            desired=self.offering.desired,
            random=random,
            on_not_served=self.served.poke,
            on_finding=lambda reason, text: self.reporter.finding(reason, None, text),
        )
        preparer = Preparer(
            journal=self.journal,
            files=ClaimFiles(cdi_dir, metadata_dir, metadata_path),
            reader=self.reader,
            inventory=self.inventory.inventory,
            cards=self.cards,
            planned=self.offering.planned,
            pool=pool,
            boot_id=boot_id,
            clock=clock,
            run_blocking=run_blocking,
            on_step=self.metrics.step,
            on_blocked=lambda uid: self.reconciler.suspect(uid),  # noqa: PLW0108  made below
        )
        self.desk = Desk(preparer, on_outcome=self.reporter.outcome)
        self.reconciler = Reconciler(
            journal=self.journal,
            desk=self.desk,
            state=state,
            cdi_dir=cdi_dir,
            kube=kube,
            claims=self.served.claims,
            inventory=self.inventory.inventory,
            pool=pool,
            boot_id=boot_id,
            period_seconds=self._reconcile_seconds,
            run_blocking=run_blocking,
            on_finding=self.reporter.finding,
        )
        self.reloader = Reloader(
            settings,
            source,
            plan=lambda current, wanted: settings_plan.plan(
                current, wanted, in_use=self.journal.ledger.value.in_use(), gpus=self.offering.known()
            ),
            state=state,
            run_blocking=run_blocking,
            on_result=self._apply,
        )
        self.registration: Latest[Registration] = Latest(Registration(Standing.WAITING, clock()))
        self._probes = Probes(
            live={"event loop": lambda: None},
            ready={
                "registered with the kubelet": self._why_not_registered,
                "API server": lambda: self.served.offer.value.why,
                "ResourceSlices": lambda: self.publisher.status.value.error,
                "inventory": lambda: self.inventory.stale_because,
            },
            metrics=self._exposition,
        )

    # --- tasks that need a word of ours ---------------------------------------------------------------------------------------------

    async def probes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve them, if the settings say so.

        Raises:
            OSError: the port is taken.
        """
        at = self.reloader.settings.value.probes
        if at.port == 0:
            task_status.started()
            return
        async with trio.open_nursery() as nursery:
            port = await nursery.start(self._probes.serve, at.address, at.port)
            log.info("probes and metrics at %s:%d", at.address, port)
            task_status.started()

    async def tell_changes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Events on the Node about what an administrator has to act upon: DRA that is off, a kubelet that refuses."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_served)
            nursery.start_soon(self._tell_registration)
            task_status.started()

    async def sockets(self) -> KubeletSockets:
        """Where to listen. With a pod's UID, and a kubelet that knows several instances, under names of this pod's own.

        Raises:
            ValueError: the kubelet's root is too long a path for sockets.
        """
        if self._pod_uid is not None and await self._kubelet_release() >= ROLLING_SINCE:
            return kubelet_sockets.rolling(self._kubelet_root, DRIVER_NAME, self._pod_uid)
        return kubelet_sockets.plain(self._kubelet_root, DRIVER_NAME)

    def grace_seconds(self) -> float:
        return seconds(self.reloader.settings.value.grace_period)

    async def _kubelet_release(self) -> tuple[int, int]:
        with trio.move_on_after(NODE_PATIENCE_SECONDS):
            while self.own_node.node.value is None:
                await self.own_node.node.wait_newer(self.own_node.node.version)
        node = self.own_node.node.value
        return (semver.release(node.kubelet_version) if node is not None else None) or (0, 0)

    async def _tell_served(self) -> None:
        seen = -1
        while True:
            offer = await self.served.offer.wait_newer(seen)
            seen = self.served.offer.version
            if offer.why is not None and offer.server_version:
                self.reporter.node_event(Weight.WARNING, "DRANotServed", offer.why)

    async def _tell_registration(self) -> None:
        seen = -1
        while True:
            now = await self.registration.wait_newer(seen)
            seen = self.registration.version
            if now.standing is Standing.REFUSED:
                self.reporter.node_event(Weight.WARNING, "RegistrationRefused", f"the kubelet refuses the driver: {now.error}")

    # --- what is so now --------------------------------------------------------------------------------------------------------------

    def _apply(self, result: Result) -> None:
        now = self.reloader.settings.value
        self._rescan_seconds.set(seconds(now.device_events.rescan_period))
        self._reconcile_seconds.set(seconds(now.reconcile_period))
        self._publish.set(now.publish)
        self._sriov.set(now.sriov)
        self._sharing.set(now.sharing)
        log_lines.set_level(now.logging.level)
        self.metrics.reload(result.outcome)
        weight = Weight.WARNING if result.outcome in ("invalid", "refused") else Weight.NORMAL
        self.reporter.node_event(weight, f"Settings{result.outcome.capitalize()}", "; ".join(result.lines))

    def _why_not_registered(self) -> str | None:
        now = self.registration.value
        match now.standing:
            case Standing.REGISTERED:
                return None
            case Standing.REFUSED:
                return f"the kubelet refuses: {now.error}"
            case Standing.WAITING:
                return now.error or "the kubelet has not called yet"

    def _exposition(self) -> bytes:
        published = self.publisher.status.value
        return self.metrics.snapshot(
            inventory=self.inventory.inventory.value,
            ledger=self.journal.ledger.value,
            devices=published.devices,
            slices=published.slices,
            in_sync=published.in_sync,
            withdrawn=len(published.withdrawn),
            not_published=len(published.not_published),
            dropped_fields=len(published.dropped),
            slice_writes=published.writes,
            events=self.announcer.written,
            events_dropped=self.announcer.dropped,
            registered=self.registration.value.standing is Standing.REGISTERED,
            stuck_cards=self.cards.stuck,
        )
