"""The claims half of a node plugin, composed as the shipped one is, over disks that survive its death.

`Disks` is what a power cut leaves; a `ClaimNode` is one life of the process on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

import trio

from dra.devices import DeviceNode, Gpu, Inventory
from dra.names import Bdf, BootId, ClaimUid, PoolName
from nursery_apps.latest import Latest
from nursery_apps.node.claim_desk import ClaimRef, PreparedReply
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.desk import Desk
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.preparer import Preparer
from nursery_apps.node.reconciler import Reconciler
from nursery_apps.seams import KubeApi
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


class Disks:
    """State directory and CDI directory of one machine."""

    def __init__(self) -> None:
        self.state: dict[str, bytes] = {}
        self.cdi: dict[str, bytes] = {}

    def reboot(self) -> None:
        self.cdi.clear()  # a tmpfs


class ClaimNode:
    """One life. Use `async with ClaimNode(...).running() as node`."""

    def __init__(
        self, server: ClaimServer, *gpus: Gpu, disks: Disks | None = None, power: Power | None = None, boot: str = "boot-1"
    ) -> None:
        self.server = server
        self.disks = disks or Disks()
        self.power = power or Power()
        self.state = MemoryStateDir(self.disks.state, self.power)
        self.cdi = MemoryStateDir(self.disks.cdi, self.power)
        self.inventory: Latest[Inventory] = Latest(Inventory(gpus))
        self.findings: list[tuple[str, str | None, str]] = []
        self.outcomes: list[tuple[str, str, str | None]] = []
        kube = cast(KubeApi, server)
        self.journal = Journal(self.state, BootId(boot), run_blocking=in_place, on_commit=lambda decisions, size, seconds: None)
        self.reader = ClaimReader(kube, lambda: CLAIMS, lambda: 0.5)
        self.preparer = Preparer(
            journal=self.journal,
            cdi_dir=self.cdi,
            reader=self.reader,
            inventory=self.inventory,
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
            async with trio.open_nursery() as claims:
                await claims.start(self.desk.run)
                async with trio.open_nursery() as intake:
                    await self.reconciler.recover()
                    if reconcile:
                        await intake.start(self.reconciler.run)
                    yield self
                    intake.cancel_scope.cancel()
                self.desk.close()
            supporters.cancel_scope.cancel()

    async def prepare(self, uid: str, *, deadline_seconds: float = 45) -> PreparedReply | str:
        return (await self.desk.prepare([ref(uid)], deadline_seconds))[ClaimUid(uid)]

    async def unprepare(self, uid: str, *, deadline_seconds: float = 45) -> str | None:
        return (await self.desk.unprepare([ref(uid)], deadline_seconds))[ClaimUid(uid)]
