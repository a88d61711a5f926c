"""The node plugin's parts, each made once and told of the others; and what of them is said to probes.

`__main__` brings the edges, `app` runs the tasks.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Mapping

import trio

from dra import decommissioning, discovery, kubelet_sockets, semver, settings_plan
from dra.classic.names import CLASSIC_DRIVER_NAME
from dra.decommissioning import Stage
from dra.durations import seconds
from dra.health.health_settings import Health
from dra.kernel_tree import KernelTree
from dra.kube.events import Weight
from dra.kubelet_sockets import KubeletSockets
from dra.names import DRIVER_NAME, BootId, NodeName, PoolName
from dra.settings import NodePluginConfiguration
from dra.sriov_settings import Sriov
from nursery_apps import log as log_lines
from nursery_apps.announcer import Announcer
from nursery_apps.latest import Latest
from nursery_apps.metrics import Metrics
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.decommissioner import Decommissioner
from nursery_apps.node.desk import Desk
from nursery_apps.node.dra_kind import Crossing
from nursery_apps.node.dra_side import Ground, SideKind
from nursery_apps.node.health.watch import HealthWatch
from nursery_apps.node.inventory import InventoryKeeper
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.own_node import OwnNodeKeeper
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.reconciler import Reconciler
from nursery_apps.node.registration import DirectoryWatch, Registration, Standing
from nursery_apps.node.reporter import Reporter
from nursery_apps.probes import Check, Probes
from nursery_apps.reload import Reloader, Result, SettingsSource
from nursery_apps.rpc import RpcCaller, RpcListener
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
        kind: SideKind,
        node: NodeName,
        boot_id: BootId,
        kubelet_root: str,
        pod_uid: str | None,
        settings: NodePluginConfiguration,
        source: SettingsSource[NodePluginConfiguration] | None,
        tree: KernelTree,
        events: DeviceEvents,
        kube: KubeApi,
        listener: RpcListener,
        caller: RpcCaller,
        directory_watch: DirectoryWatch,
        state: StateDir,
        checkpoint: StateDir,
        cdi_dir: StateDir,
        metadata_dir: StateDir,
        metadata_path: str,
        run_blocking: RunBlocking,
        kernel_call: KernelCall,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            kind: of DRA.
            checkpoint: the directory where the original driver of that kind left its claims.
        """
        self._kind = kind
        self._kubelet_root = kubelet_root
        self._pod_uid = pod_uid
        self.listener, self.directory_watch = listener, directory_watch
        self.run_blocking, self.clock, self.random = run_blocking, clock, random
        self.metrics = Metrics()
        self._rescan_seconds = Latest(seconds(settings.device_events.rescan_period))
        self._reconcile_seconds = Latest(seconds(settings.reconcile_period))
        self._publish = Latest(settings.publish)
        self._decommission = Latest(settings.decommission)
        self.stage = Latest(Stage.UNDECIDED if settings.decommission else Stage.IN_SERVICE)
        self._sriov = Latest(self._sriov_in(settings))
        self._sharing = Latest(settings.sharing)
        pool = PoolName(node)

        self.announcer = Announcer(kube, component=f"{kind.driver}/node-plugin", node=node, clock=clock)
        self.reporter = Reporter(node, self.announcer, self.metrics)
        self.journal = Journal(
            state, boot_id, run_blocking=run_blocking, on_commit=self.metrics.commit, on_failure=self.metrics.commit_failed
        )
        self.inventory = InventoryKeeper(
            tree,
            events,
            call=kernel_call,
            rescan_seconds=self._rescan_seconds,
            on_scan=self.metrics.scan,
            on_wedged=self.reporter.wedged,
            on_event=lambda event: self.health.hear(event),  # noqa: PLW0108  made below
        )
        self.health = HealthWatch(
            _health_in(settings),
            tree=tree,
            call=kernel_call,
            inventory=self.inventory.inventory,
            ledger=self.journal.ledger,
            known=lambda: self.side.offering.known(),  # noqa: PLW0108  made below
            planned=lambda: self.side.offering.planned().gpus.values(),  # noqa: PLW0108  made below
            offered=lambda: self.side.offering.desired,
            state=state,
            run_blocking=run_blocking,
            clock=clock,
            reporter=self.reporter,
            metrics=self.metrics,
            caller=caller,
            random=random,
        )
        self.own_node = OwnNodeKeeper(kube, node, random)
        self.crossing = Crossing(kind.kind, self.own_node.node, state, run_blocking)
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
            recoveries=self.health.recoveries,
            on_recovered=self.health.recovered,
        )
        self.side = kind(
            Ground(
                kube=kube,
                node=node,
                pool=pool,
                boot_id=boot_id,
                journal=self.journal,
                inventory=self.inventory.inventory,
                cards=self.cards,
                own_node=self.own_node.node,
                publish=self._publish,
                sharing=self._sharing,
                sriov=self._sriov,
                opinion=self.health.opinion,
                health=self.health.told,
                stage=self.stage,
                reporter=self.reporter,
                clock=clock,
                random=random,
            )
        )
        preparer = Preparer(
            journal=self.journal,
            files=ClaimFiles(cdi_dir, metadata_dir, metadata_path),
            allocations=self.side.allocations,
            inventory=self.inventory.inventory,
            cards=self.cards,
            planned=self.side.offering.planned,
            driver=kind.driver,
            boot_id=boot_id,
            clock=clock,
            run_blocking=run_blocking,
            on_step=self.metrics.step,
            on_blocked=lambda uid: self.reconciler.suspect(uid),  # noqa: PLW0108  made below
            takes_back=kind.takes_back,
            decommission=self._decommission,
        )
        self.desk = Desk(preparer, on_outcome=self.reporter.outcome)
        self.reconciler = Reconciler(
            journal=self.journal,
            desk=self.desk,
            checkpoint=checkpoint,
            cdi_dir=cdi_dir,
            lookup=self.side.lookup,
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
                current, wanted, in_use=self.journal.ledger.value.in_use(), gpus=self.side.offering.known()
            ),
            state=state,
            run_blocking=run_blocking,
            on_result=self._apply,
        )
        self.decommissioner = Decommissioner(
            wanted=self._decommission,
            stage=self.stage,
            journal=self.journal,
            inventory=self.inventory.inventory,
            state=state,
            checkpoint=checkpoint,
            cdi_dir=cdi_dir,
            metadata_dir=metadata_dir,
            forget=self._forget,
            keep=self._keep,
            say=self.reporter.node_event,
            gone=lambda bdf: discovery.gone(tree, bdf),
        )
        self.registration: Latest[Registration] = Latest(Registration(Standing.WAITING, clock()))
        self._ready: Mapping[str, Check] = {
            "registered with the kubelet": self._why_not_registered,
            **self.side.ready,
            "inventory": lambda: self.inventory.stale_because,
        }
        self._probes = Probes(
            live={"event loop": lambda: None},
            ready=self._ready,
            metrics=self._exposition,
        )

    # --- tasks that need a word of ours ---------------------------------------------------------------------------------------------

    async def probes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Raises:
            OSError: the port is taken.
        """
        at = self.reloader.settings.value.probes
        await self._probes.run(at.address, at.port, task_status=task_status)

    async def tell_changes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """An Event on the Node about a kubelet that refuses: an administrator has to act."""
        task_status.started()
        seen = -1
        while True:
            now = await self.registration.wait_newer(seen)
            seen = self.registration.version
            if now.standing is Standing.REFUSED:
                self.reporter.node_event(Weight.WARNING, "RegistrationRefused", f"the kubelet refuses the driver: {now.error}")

    async def sockets(self) -> KubeletSockets:
        """Where to listen. With a pod's UID, and a kubelet that knows several instances, under names of this pod's own.

        Raises:
            ValueError: the kubelet's root is too long a path for sockets.
        """
        self._bury_the_other_kind()
        if self._pod_uid is not None and await self._kubelet_release() >= ROLLING_SINCE:
            return kubelet_sockets.rolling(self._kubelet_root, self.driver, self._pod_uid)
        return kubelet_sockets.plain(self._kubelet_root, self.driver)

    @property
    def driver(self) -> str:
        return self._kind.driver

    def grace_seconds(self) -> float:
        return seconds(self.reloader.settings.value.grace_period)

    def _bury_the_other_kind(self) -> None:
        """Sockets that a plugin of the other kind left when it was killed: the kubelet calls a dead registrar again and again."""
        other = CLASSIC_DRIVER_NAME if self.driver == DRIVER_NAME else DRIVER_NAME
        theirs = kubelet_sockets.plain(self._kubelet_root, other)
        own = posixpath.basename(kubelet_sockets.plain(self._kubelet_root, self.driver).registrar)
        try:
            removed = self.listener.remove_dead(
                posixpath.dirname(theirs.registrar), lambda name: kubelet_sockets.is_registrar_of(other, name, own=own)
            )
            removed += self.listener.remove_dead(posixpath.dirname(theirs.endpoint), kubelet_sockets.is_endpoint)
        except OSError as error:
            log.warning("cannot look for dead sockets of %s: %s", other, error.strerror)
            return
        if removed:
            log.info("removed dead sockets of %s: %s", other, ", ".join(removed))

    async def _kubelet_release(self) -> tuple[int, int]:
        with trio.move_on_after(NODE_PATIENCE_SECONDS):
            while self.own_node.node.value is None:
                await self.own_node.node.wait_newer(self.own_node.node.version)
        node = self.own_node.node.value
        return (semver.release(node.kubelet_version) if node is not None else None) or (0, 0)

    # --- what is so now --------------------------------------------------------------------------------------------------------------

    def _apply(self, result: Result) -> None:
        now = self.reloader.settings.value
        self._rescan_seconds.set(seconds(now.device_events.rescan_period))
        self._reconcile_seconds.set(seconds(now.reconcile_period))
        self._publish.set(now.publish)
        self._decommission.set(now.decommission)
        self._sriov.set(self._sriov_in(now))
        self._sharing.set(now.sharing)
        self.health.settings.set(_health_in(now))
        log_lines.set_level(now.logging.level)
        self.metrics.reload(result.outcome)
        self.reporter.reloaded(result.outcome, result.lines)

    def _sriov_in(self, settings: NodePluginConfiguration) -> Sriov:
        sriov = self._kind.sriov(settings.sriov)
        return decommissioning.sriov(sriov) if settings.decommission else sriov

    async def _forget(self) -> None:
        """Who writes a file of its own removes it, and writes none any more.

        Raises:
            OSError: one cannot be removed.
        """
        await self.health.monitor.forget()
        await self.reloader.forget()

    async def _keep(self) -> None:
        self.health.monitor.keep()
        await self.reloader.keep()
        await self.crossing.remember()

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
        self.health.expose()
        self.metrics.state(
            ready={name: check() for name, check in self._ready.items()},
            behind=self.own_node.error.value is not None or self.side.why_behind is not None,
            events=self.announcer.written,
            events_dropped=self.announcer.dropped,
        )
        return self.metrics.snapshot(
            inventory=self.inventory.inventory.value,
            ledger=self.journal.ledger.value,
            **self.side.published(),
            registered=self.registration.value.standing is Standing.REGISTERED,
            faulty_cards=self.cards.faulty,
            stuck_cards=self.cards.stuck,
            decommissioned=self.stage.value is Stage.CLEAN,
        )


def _health_in(settings: NodePluginConfiguration) -> Health:
    return decommissioning.health(settings.health) if settings.decommission else settings.health
