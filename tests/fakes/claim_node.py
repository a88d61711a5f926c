"""The claims half of a node plugin, composed as the shipped one is, over disks that survive its death.

`Disks` is what a power cut leaves; a `ClaimNode` is one life of the process on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

import trio

from dra import discovery
from dra.devices import DeviceNode, Gpu, Inventory
from dra.kernel_tree import KernelTree
from dra.names import Bdf, BootId, ClaimUid, NodeName, PoolName
from dra.settings import Publish
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from nursery_apps.latest import Latest
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimRef, PreparedReply
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.desk import Desk
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Offering
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.reconciler import Reconciler
from nursery_apps.seams import Hung, KubeApi
from tests.fakes.claim_server import CLAIMS, ClaimServer
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
        server: ClaimServer,
        *gpus: Gpu,
        disks: Disks | None = None,
        power: Power | None = None,
        boot: str = "boot-1",
        kernel: SimKernel | None = None,
        sriov: Sriov | None = None,
    ) -> None:
        """With `kernel` the inventory is what a scan of it finds, and `gpus` are not needed."""
        self.server = server
        self.kernel = kernel
        self._asked = trio.Event()
        self.disks = disks or Disks()
        self.power = power or Power()
        self.state = MemoryStateDir(self.disks.state, self.power)
        self.cdi = MemoryStateDir(self.disks.cdi, self.power)
        self.metadata = MemoryStateDir(self.disks.metadata, self.power)
        self.inventory: Latest[Inventory] = Latest(Inventory(gpus) if kernel is None else discovery.scan(kernel))
        self.sriov = Latest(sriov or Sriov())
        self.faults: list[str] = []
        self.plans: list[str] = []
        self.steps: list[tuple[str, str]] = []
        """(address, step) of every step of a card."""
        self.findings: list[tuple[str, str | None, str]] = []
        self.outcomes: list[tuple[str, str, str | None]] = []
        kube = cast(KubeApi, server)
        self.journal = Journal(self.state, BootId(boot), run_blocking=in_place, on_commit=lambda decisions, size, seconds: None)
        self.reader = ClaimReader(kube, lambda: CLAIMS, lambda: 0.5)
        self.cards = Cards(
            tree=kernel if kernel is not None else cast(KernelTree, None),  # nothing is read without cut cards
            call=call_in_place,
            journal=self.journal,
            inventory=self.inventory,
            rescan=self.rescan,
            settings=self.sriov,
            node=Latest(None),
            boot_id=BootId(boot),
            on_step=lambda bdf, step, seconds: self.steps.append((bdf, step)),
            on_fault=lambda bdf, fault: self.faults.append(f"{fault.reason}: {fault}"),
            on_plan=lambda sentence, at_fault: self.plans.append(sentence),
        )
        self.offering = Offering(
            NodeName(POOL),
            self.cards.sight,
            self.journal.ledger,
            Latest(Publish()),
            Latest(()),
            on_tainted=lambda sentence: None,
        )
        self.preparer = Preparer(
            journal=self.journal,
            files=ClaimFiles(self.cdi, self.metadata, "/plugin/dra-device-metadata"),
            reader=self.reader,
            inventory=self.inventory,
            cards=self.cards,
            planned=self.offering.planned,
            pool=POOL,
            boot_id=BootId(boot),
            clock=lambda: 0.0,
            run_blocking=in_place,
            on_step=lambda step, seconds: None,
            on_blocked=lambda uid: self.reconciler.suspect(uid),  # noqa: PLW0108  made below
        )
        self.desk = Desk(
            self.preparer,
            on_outcome=lambda verb, claim, error, seconds, pods: self.outcomes.append((verb, claim.uid, error and error.reason)),
        )
        self.period_seconds = Latest(600.0)
        self.reconciler = Reconciler(
            journal=self.journal,
            desk=self.desk,
            state=self.state,
            cdi_dir=self.cdi,
            kube=kube,
            claims=lambda: CLAIMS,
            inventory=self.inventory,
            pool=POOL,
            boot_id=BootId(boot),
            period_seconds=self.period_seconds,
            run_blocking=in_place,
            on_finding=lambda reason, claim, text: self.findings.append((reason, claim, text)),
        )

    @contextlib.asynccontextmanager
    async def running(self, *, reconcile: bool = False) -> AsyncIterator[ClaimNode]:
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
                        yield self
                        intake.cancel_scope.cancel()
                    self.desk.close()
                self.cards.close()
            supporters.cancel_scope.cancel()

    def rescan(self) -> None:
        self._asked.set()

    async def _scan(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As the inventory's keeper does, without its patience for bursts."""
        assert self.kernel is not None
        leave = self.kernel.subscribe(lambda *_event: self._asked.set(), lambda _why: self._asked.set())
        try:
            task_status.started()
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                self.inventory.set(discovery.scan(self.kernel))
        finally:
            leave()

    async def prepare(self, uid: str, *, deadline_seconds: float = 45) -> PreparedReply | str:
        return (await self.desk.prepare([ref(uid)], deadline_seconds))[ClaimUid(uid)]

    async def unprepare(self, uid: str, *, deadline_seconds: float = 45) -> str | None:
        return (await self.desk.unprepare([ref(uid)], deadline_seconds))[ClaimUid(uid)]
