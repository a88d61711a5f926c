"""The claims half of a node plugin, composed as the shipped one is, over disks that survive its death.

`Disks` is what a power cut leaves; a `ClaimNode` is one life of the process on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self, TypeVar, cast

import trio

from dra import decommissioning, discovery, slices
from dra.decommissioning import Stage
from dra.devices import DeviceNode, Gpu, Inventory, State
from dra.errors import DriverError
from dra.health.recovery import Method
from dra.kernel_tree import KernelTree
from dra.names import DRIVER_NAME, Bdf, BootId, ClaimUid, NodeName, PoolName
from dra.offer import Offer, Sight
from dra.settings import Publish
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from nursery_apps.latest import Latest
from nursery_apps.node.allocations import Allocations, ApiAllocations
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimRef, PreparedReply
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.claim_lookup import StructuredClaims
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.decommissioner import Decommissioner
from nursery_apps.node.desk import Desk
from nursery_apps.node.inventory import BURST_QUIET_SECONDS
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Offering
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.reconciler import ClaimLookup, Reconciler
from nursery_apps.seams import Hung, KernelCall, KubeApi
from tests.fakes.claim_server import CLAIMS, ClaimServer
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.state_dir import MemoryStateDir, Power

T = TypeVar("T")

POOL = PoolName("node1")


def gpu(number: int, *, minor: int | None = None, **changes: Any) -> Gpu:
    """A healthy card at 0000:<number>:00.0; `minor` shifts its device nodes."""
    minor = number if minor is None else minor
    fields: dict[str, Any] = {
        "bdf": Bdf(f"0000:{number:02x}:00.0"),
        "device": "0x56c0",
        "driver": "i915",
        "card": minor,
        "render": 128 + minor,
        "card_node": DeviceNode(f"/dev/dri/card{minor}", 226, minor, 0o660, 44),
        "render_node": DeviceNode(f"/dev/dri/renderD{128 + minor}", 226, 128 + minor, 0o660, 105),
    }
    return Gpu(**(fields | changes))


def ref(uid: str, name: str = "", namespace: str = "default") -> ClaimRef:
    return ClaimRef(ClaimUid(uid), namespace, name or uid)


async def in_place(work: Callable[[], T], /) -> T:
    """RunBlocking without a thread: memory does not block, and virtual time stands still meanwhile."""
    await trio.lowlevel.checkpoint()
    return work()


class Blocks(Exception):
    """The kernel does not come back until `free` is set."""

    def __init__(self, free: trio.Event) -> None:
        self.free = free


def blocked(machine: SimKernel, path: str, operation: str) -> trio.Event:
    """Make an operation hang until the event is set."""
    free = trio.Event()

    def gate() -> None:
        if not free.is_set():
            raise Blocks(free)

    machine.hang(path, operation, gate)
    return free


async def call_in_place(work: Callable[[], T], /, *, seconds: float) -> T:
    """KernelCall without a thread: the simulated kernel takes no time, and where it would block a test raises `Blocks` in its gate."""
    await trio.lowlevel.checkpoint()
    try:
        return work()
    except Blocks as blocked:
        free = blocked.free
    with trio.move_on_after(seconds):
        await free.wait()
        return await call_in_place(work, seconds=seconds)
    raise Hung(seconds, free)


class Disks:
    """State directory and CDI directory of one machine."""

    def __init__(self) -> None:
        self.state: dict[str, bytes] = {}
        self.cdi: dict[str, bytes] = {}
        self.metadata: dict[str, bytes] = {}

    def reboot(self) -> None:
        self.cdi.clear()  # a tmpfs


class ClaimNode:
    """One life. Use `async with ClaimNode(...).running() as node`."""

    def __init__(
        self,
        server: ClaimServer | FakeKubeApi,
        *gpus: Gpu,
        disks: Disks | None = None,
        power: Power | None = None,
        boot: str = "boot-1",
        kernel: SimKernel | None = None,
        sriov: Sriov | None = None,
        name: PoolName = POOL,
        call: KernelCall = call_in_place,
        decommission: bool = False,
    ) -> None:
        """With `kernel` the inventory is what a scan of it finds, and `gpus` are not needed."""
        self.decommission = Latest(decommission)
        self.stage = Latest(Stage.UNDECIDED if decommission else Stage.IN_SERVICE)
        self.said: list[tuple[str, str]] = []
        """(reason, sentence) of Events about the node's removal."""
        self._settings = sriov or Sriov()
        self.server = server
        self.name = name
        self.kernel = kernel
        self._asked = trio.Event()
        self._wedged: dict[Bdf, str] = {}
        self.disks = disks or Disks()
        self.power = power or Power()
        self.state = MemoryStateDir(self.disks.state, self.power)
        self.cdi = MemoryStateDir(self.disks.cdi, self.power)
        self.metadata = MemoryStateDir(self.disks.metadata, self.power)
        self.inventory: Latest[Inventory] = Latest(Inventory(gpus) if kernel is None else discovery.scan(kernel))
        self.sriov = Latest(decommissioning.sriov(self._settings) if decommission else self._settings)
        self.faults: list[str] = []
        self.plans: list[str] = []
        self.recoveries: Latest[Mapping[Bdf, Method]] = Latest({})
        self.recovered: list[tuple[Bdf, str | None]] = []
        """(address, why not) of every attempt."""
        self.states_after: list[State] = []
        """What the inventory said of the card by then."""
        self.steps: list[tuple[str, str]] = []
        """(address, step) of every step of a card."""
        self.findings: list[tuple[str, str | None, str]] = []
        self.outcomes: list[tuple[str, str, str | None]] = []
        kube = cast(KubeApi, server)
        self.journal = Journal(self.state, BootId(boot), run_blocking=in_place, on_commit=lambda decisions, size, seconds: None)
        self.reader = ClaimReader(kube, lambda: CLAIMS, lambda: 0.5)
        self.cards = Cards(
            tree=kernel if kernel is not None else cast(KernelTree, None),  # nothing is read without cut cards
            call=call,
            journal=self.journal,
            inventory=self.inventory,
            rescan=self.rescan,
            settings=self.sriov,
            node=Latest(None),
            boot_id=BootId(boot),
            on_step=lambda bdf, step, seconds: self.steps.append((bdf, step)),
            on_fault=lambda bdf, fault: self.faults.append(f"{fault.reason}: {fault}"),
            on_plan=lambda sentence, at_fault: self.plans.append(sentence),
            recoveries=self.recoveries,
            on_recovered=self._recovered,
        )
        self.offering = Offering(
            self.desire,
            self.cards.sight,
            self.journal.ledger,
            Latest(Publish()),
            Latest(()),
            on_tainted=lambda sentence: None,
            stage=self.stage,
        )
        self.preparer = Preparer(
            journal=self.journal,
            files=ClaimFiles(self.cdi, self.metadata, "/plugin/dra-device-metadata"),
            allocations=self.allocations(),
            inventory=self.inventory,
            cards=self.cards,
            planned=self.offering.planned,
            driver=self.driver,
            boot_id=BootId(boot),
            clock=lambda: 0.0,
            run_blocking=in_place,
            on_step=lambda step, seconds: None,
            on_blocked=lambda uid: self.reconciler.suspect(uid),  # noqa: PLW0108  made below
            takes_back=self.takes_back,
            decommission=self.decommission,
        )
        self.desk = Desk(
            self.preparer,
            on_outcome=lambda verb, claim, error, seconds, pods: self.outcomes.append((verb, claim.uid, error and error.reason)),
        )
        self.period_seconds = Latest(600.0)
        self.reconciler = Reconciler(
            journal=self.journal,
            desk=self.desk,
            checkpoint=self.state,
            cdi_dir=self.cdi,
            lookup=self.lookup(),
            inventory=self.inventory,
            pool=name,
            boot_id=BootId(boot),
            period_seconds=self.period_seconds,
            run_blocking=in_place,
            on_finding=lambda reason, claim, text: self.findings.append((reason, claim, text)),
        )
        self.decommissioner = Decommissioner(
            gone=lambda bdf: discovery.gone(self.kernel, bdf),
            wanted=self.decommission,
            stage=self.stage,
            journal=self.journal,
            inventory=self.inventory,
            state=self.state,
            checkpoint=self.state,
            cdi_dir=self.cdi,
            metadata_dir=self.metadata,
            forget=self._forget,
            keep=self._keep,
            say=lambda _weight, reason, text: self.said.append((reason, text)),
        )

    # --- what classic DRA does otherwise

    driver = DRIVER_NAME
    takes_back = False

    def allocations(self) -> Allocations:
        return ApiAllocations(self.reader, self.inventory, self.offering.planned, self.name)

    def lookup(self) -> ClaimLookup:
        return StructuredClaims(cast(KubeApi, self.server), lambda: CLAIMS, self.name)

    def desire(self, made: Offer, sight: Sight) -> Any:
        return slices.desired(NodeName(self.name), made.gpus, taints=made.taints, terms=made.terms, counters=made.counters)

    def ref(self, uid: str) -> ClaimRef:
        return ref(uid)

    # --- one life

    @contextlib.asynccontextmanager
    async def running(self, *, reconcile: bool = False) -> AsyncIterator[Self]:
        """Recovered and taking orders; ends like the shipped one: no more orders, then the claims, then the journal."""
        self.journal.open()
        async with trio.open_nursery() as supporters:
            await supporters.start(self.journal.run)
            await supporters.start(self.reader.run)
            async with trio.open_nursery() as hardware:
                hardware.start_soon(self.cards.run)
                async with trio.open_nursery() as claims:
                    await claims.start(self.desk.run)
                    async with trio.open_nursery() as intake:
                        if self.kernel is not None:
                            await intake.start(self._scan)
                        await intake.start(self.offering.run)
                        await self.reconciler.recover()
                        if reconcile:
                            await intake.start(self.reconciler.run)
                        await intake.start(self.decommissioner.run)
                        yield self
                        intake.cancel_scope.cancel()
                    self.desk.close()
                self.cards.close()
            supporters.cancel_scope.cancel()

    def set_decommission(self, wanted: bool) -> None:
        """As a reload of the settings does."""
        self.decommission.set(wanted)
        self.sriov.set(decommissioning.sriov(self._settings) if wanted else self._settings)

    async def _forget(self) -> None:
        await trio.lowlevel.checkpoint()
        self.state.remove("health")

    async def _keep(self) -> None:
        await trio.lowlevel.checkpoint()
        self.state.replace("health", b"{}")

    def rescan(self) -> None:
        self._asked.set()

    def _recovered(self, bdf: Bdf, fault: DriverError | None) -> None:
        self.recovered.append((bdf, None if fault is None else str(fault)))
        self.states_after.append(self.inventory.value.by_bdf()[bdf].state)
        self.recoveries.set({})

    async def _scan(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As the inventory's keeper does: it is behind the kernel by as long as it waits for the end of a burst."""
        assert self.kernel is not None
        leave = self.kernel.subscribe(self._event, lambda _why: self._asked.set())
        try:
            task_status.started()
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                await trio.sleep(BURST_QUIET_SECONDS)
                self.inventory.set(discovery.scan(self.kernel, wedged=self._wedged))
        finally:
            leave()

    def _event(self, action: str, subsystem: str, path: str, properties: Mapping[str, str]) -> None:
        if "WEDGED" in properties:  # of /devices/pci.../0000:18:00.0/drm/card1
            self._wedged[Bdf(path.split("/")[-3])] = properties["WEDGED"]
        elif subsystem == "pci" and action in ("bind", "unbind"):
            self._wedged.pop(Bdf(path.rpartition("/")[2]), None)
        self._asked.set()

    async def prepare(self, uid: str, *, deadline_seconds: float = 45) -> PreparedReply | str:
        return (await self.desk.prepare([self.ref(uid)], deadline_seconds))[ClaimUid(uid)]

    async def unprepare(self, uid: str, *, deadline_seconds: float = 45) -> str | None:
        return (await self.desk.unprepare([self.ref(uid)], deadline_seconds))[ClaimUid(uid)]
