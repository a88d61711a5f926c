"""The node plugin's parts, each made once and told of the others; and what is said of them to people: readiness, metrics, Events, log.

`__main__` brings the edges, `app` runs the tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from dra import journal, kubelet_sockets, semver, settings_plan
from dra.errors import DriverError
from dra.kernel_tree import KernelTree
from dra.kube.claims import Consumer
from dra.kube.events import Regarding, Weight
from dra.kubelet_sockets import KubeletSockets
from dra.names import DRIVER_NAME, Bdf, BootId, ClaimUid, NodeName, PoolName
from dra.settings import NodePluginConfiguration, seconds
from nursery_apps import log as log_lines
from nursery_apps.latest import Latest
from nursery_apps.metrics import Metrics
from nursery_apps.node.announcer import Announcer
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.desk import Desk, Verb
from nursery_apps.node.inventory import InventoryKeeper
from nursery_apps.node.journal_writer import Journal, Opened
from nursery_apps.node.offering import Offering
from nursery_apps.node.own_node import OwnNodeKeeper
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.publisher import Publisher
from nursery_apps.node.reconciler import Reconciler, Recovered
from nursery_apps.node.registration import DirectoryWatch, Registration, Standing
from nursery_apps.node.served_api import ServedApiKeeper
from nursery_apps.probes import Probes
from nursery_apps.reload import Reloader, Result, SettingsSource
from nursery_apps.rpc import RpcListener
from nursery_apps.seams import Clock, DeviceEvents, KernelCall, KubeApi, RunBlocking, StateDir

log = logging.getLogger(__name__)

ROLLING_SINCE = (1, 33)
"""Kubelets from this release on keep several instances of one driver; earlier ones refuse or confuse the second."""
PODS_TOLD = 4
"""Of a claim that many pods share; the claim's own Event has the same text."""
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
        self.journal = Journal(state, boot_id, run_blocking=run_blocking, on_commit=self.metrics.commit)
        self.inventory = InventoryKeeper(
            tree,
            events,
            call=kernel_call,
            rescan_seconds=self._rescan_seconds,
            on_scan=self.metrics.scan,
            on_wedged=self._tell_wedged,
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
            on_fault=self._tell_card_fault,
            on_plan=self._tell_layout,
        )
        self.offering = Offering(node, self.cards.sight, self.journal.ledger, self._publish, self._sharing, on_tainted=self._tell_tainted)
        self.reader = ClaimReader(kube, self.served.claims, random)
        self.publisher = Publisher(
            kube,
            node,
            offer=self.served.offer,
            node=self.own_node.node,
            desired=self.offering.desired,
            random=random,
            on_not_served=self.served.poke,
            on_finding=lambda reason, text: self._tell_finding(reason, None, text),
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
        self.desk = Desk(preparer, on_outcome=self._tell_outcome)
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
            on_finding=self._tell_finding,
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
                self._announce(Weight.WARNING, "DRANotServed", offer.why)

    async def _tell_registration(self) -> None:
        seen = -1
        while True:
            now = await self.registration.wait_newer(seen)
            seen = self.registration.version
            if now.standing is Standing.REFUSED:
                self._announce(Weight.WARNING, "RegistrationRefused", f"the kubelet refuses the driver: {now.error}")

    # --- what the parts report -------------------------------------------------------------------------------------------------------

    def tell_opened(self, opened: Opened) -> None:
        """The journal was read."""
        log.info("journal: %d claims", opened.claims)
        if opened.torn_bytes:
            log.info("journal: dropped %d bytes of a write that was cut short", opened.torn_bytes)
        if opened.illegible:
            log.error("journal: %d lines are illegible; they were set aside in %s", opened.illegible, journal.PARKED)
        for parked in opened.parked:
            text = f"a record of the journal cannot be believed ({parked.why}), claim {parked.uid or 'unknown'}: its devices are kept back"
            log.error("%s: %s", text, ", ".join(parked.devices) or "none named")
            self._tell_finding("RecordParked", parked.uid, text)

    def tell_recovered(self, recovered: Recovered) -> None:
        log.info(
            "recovered: %d claims, %d orphaned CDI files removed, %d claims taken over",
            recovered.claims,
            recovered.orphan_files,
            recovered.taken_over,
        )

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
        self._announce(weight, f"Settings{result.outcome.capitalize()}", "; ".join(result.lines))

    def _tell_outcome(self, verb: Verb, ref: ClaimRef, error: DriverError | None, took: float, consumers: tuple[Consumer, ...]) -> None:
        self.metrics.operation(verb, error, took)
        with log_lines.about_claim(ref.uid):
            if error is not None:
                log.warning("%s of %s/%s failed after %.3f s: %s", verb, ref.namespace, ref.name, took, error)
                if verb is not Verb.SETTLE:
                    concerned = [Regarding("ResourceClaim", ref.name, ref.namespace, ref.uid, "resource.k8s.io/v1")]
                    pods = [consumer for consumer in consumers if consumer.resource == "pods"]
                    concerned += [Regarding("Pod", pod.name, ref.namespace, pod.uid) for pod in pods[:PODS_TOLD]]
                    for about in concerned:
                        self.announcer.announce(about, Weight.WARNING, f"{verb.capitalize()}Failed", str(error))
            elif verb is not Verb.SETTLE:
                log.info("%s of %s/%s done in %.1f ms", verb, ref.namespace, ref.name, 1000 * took)

    def _tell_finding(self, reason: str, claim: ClaimUid | None, text: str) -> None:
        self.metrics.finding(reason)
        self._announce(Weight.WARNING, reason, text if claim is None or claim in text else f"claim {claim}: {text}")

    def _tell_wedged(self, bdf: Bdf, how: str) -> None:
        self.metrics.wedged()
        self._announce(Weight.WARNING, "GPUWedged", f"GPU {bdf} is wedged ({how}): withdrawn until its driver is bound again")

    def _tell_card_fault(self, bdf: Bdf, fault: DriverError) -> None:
        text = str(fault) if bdf in str(fault) else f"{bdf}: {fault}"
        log.error("%s", text)
        self._tell_finding(fault.reason, None, text)

    def _tell_layout(self, sentence: str, at_fault: bool) -> None:
        log.log(logging.WARNING if at_fault else logging.INFO, "layout: %s", sentence)
        self._announce(Weight.WARNING if at_fault else Weight.NORMAL, "LayoutImpossible" if at_fault else "LayoutPlanned", sentence)

    def _tell_tainted(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._announce(Weight.WARNING, "GPUTainted", sentence)

    def _announce(self, weight: Weight, reason: str, text: str) -> None:
        # `kubectl describe node` looks for Events under the Node's name as UID.
        self.announcer.announce(Regarding("Node", self._node, uid=self._node), weight, reason, text)

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
