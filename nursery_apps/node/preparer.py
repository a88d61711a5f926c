"""Carries one claim from what it was allocated to what a container can use, and back.

With `claim_files` for the files, the only executor of `dra.preparation`. Every method is one operation on one claim;
`nursery_apps.node.desk` sees to it that a claim has one operation at a time. Cancellation lands between steps: a started file or journal
write is finished, and the next operation computes what is left from the facts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
import trio

from dra import allocation, cdi, preparation
from dra.claims import Happening, Stage, advance
from dra.decommissioning import NotServed
from dra.devices import Inventory
from dra.errors import DriverError, NotYet
from dra.ledger import Change, Forget, Ledger
from dra.names import BootId, ClaimUid, DeviceName
from dra.records import Grant, Record
from nursery_apps.latest import Latest
from nursery_apps.node.allocations import Allocations
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimRef, PreparedDevice, PreparedReply, Progress
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Planned
from nursery_apps.seams import Clock, RunBlocking

log = logging.getLogger(__name__)


class OnStep(Protocol):
    def __call__(self, step: str, seconds: float, /) -> None:
        """A step of an operation took so long: `read`, `device`, `journal`, `cdi`."""


class Preparer:
    def __init__(
        self,
        *,
        journal: Journal,
        files: ClaimFiles,
        allocations: Allocations,
        inventory: Latest[Inventory],
        cards: Cards,
        planned: Callable[[], Planned],
        driver: str,
        boot_id: BootId,
        clock: Clock,
        run_blocking: RunBlocking,
        on_step: OnStep,
        on_blocked: Callable[[ClaimUid], None],
        takes_back: bool = False,
        decommission: Latest[bool] | None = None,
    ) -> None:
        """
        Args:
            decommission: the driver is to be removed: claims that the journal does not know yet are refused.
            planned: VFs that are not made yet, as they will be.
            driver: its name in the allocations of claims.
            on_blocked: told which claim stands in the way of another: it may be one that no longer exists.
            takes_back: what a claim was granted by a prepare that then failed: kubelets up to 1.30 keep no trace of it and never unprepare.
        """
        self._journal = journal
        self._files = files
        self._allocations = allocations
        self._inventory = inventory
        self._cards = cards
        self._planned = planned
        self._driver = driver
        self._takes_back = takes_back
        self._decommission = decommission if decommission is not None else Latest(False)
        self._boot_id = boot_id
        self._clock = clock
        self._run_blocking = run_blocking
        self._on_step = on_step
        self._on_blocked = on_blocked

    async def prepare(self, ref: ClaimRef, progress: Progress) -> PreparedReply:
        """Make the claim ready and say how the container runtime knows its devices. Repeating it changes nothing and answers the same.

        Raises:
            DriverError: final; the text is for the pod's Event. What may still come good is waited for until the caller's deadline.
        """
        record = self._journal.ledger.value.get(ref.uid)
        if record is not None and record.stage is Stage.RELEASING:
            progress.waiting_for = "its earlier unprepare to finish"
            await self.settle(ref.uid)
            record = None
        self._require_service(record)
        started = trio.current_time()
        allocated = await self._allocations.of(ref, record, progress)
        grants = allocated.grants
        self._on_step("read", trio.current_time() - started)
        # What a card's owner has to make or change first is waited for after the claim holds it: nobody else may want it otherwise then.
        await self._await_devices([grant for grant in grants if not self._cards.concerns(grant)], progress)
        is_new = record is None
        if record is None or not record.same_holdings(grants):
            record = await self._grant(ref, grants, progress, allocated.pod_claim)
        failure: DriverError | None = None
        try:
            await self._await_cards(grants, progress)
            await self.settle(ref.uid)
        except DriverError as refused:
            failure = refused
        if failure is None:
            return self._reply(record, grants)
        if is_new and self._takes_back:
            await self._take_back(ref)
        raise failure

    async def unprepare(self, ref: ClaimRef) -> None:
        """Take the claim apart. Success for whatever is gone already; asks nobody, least of all the API server.

        Raises:
            DriverError: the journal or the CDI directory cannot be written.
        """
        if self._journal.ledger.value.get(ref.uid) is None:
            await self._journal.refresh()
        if self._journal.ledger.value.get(ref.uid) is not None:

            def release(ledger: Ledger) -> list[Change]:
                record = ledger.get(ref.uid)
                if record is None or record.stage is Stage.RELEASING:
                    return []
                return [ledger.put(msgspec.structs.replace(record, stage=advance(record.stage, Happening.UNPREPARE)))]

            await self._timed("journal", self._journal.commit(release))
        await self.settle(ref.uid)
        if self._journal.ledger.value.stage(ref.uid) is Stage.PARKED:
            await self._forget(ref.uid)

    async def _take_back(self, ref: ClaimRef) -> None:
        try:
            await self.unprepare(ref)
        except DriverError as error:
            log.warning("what was granted to claim %s/%s is not taken back yet: %s", ref.namespace, ref.name, error)

    async def _give_back(self, record: Record) -> None:
        """Have functions bound to their own drivers again, before anything else of the claim goes.

        Raises:
            DriverError: the kernel refused; the claim goes on holding them, and the kubelet asks again.
        """
        lent = {grant.bdf: grant.card for grant in record.grants if grant.driver and not grant.admin}
        faults = await self._cards.ready(set(lent.values())) if lent else {}
        for bdf in lent:
            if bdf in faults:
                raise faults[bdf]

    async def settle(self, uid: ClaimUid) -> Stage:
        """Take steps until the facts are what the record says; the one path of normal work, retry and recovery.

        Raises:
            HardwareFault: a function cannot be given back, or a file of the CDI directory cannot be written or removed.
            JournalUnwritable: the record cannot be dropped.
        """
        record = self._journal.ledger.value.get(uid)
        if record is None and (record := await self._sweep(uid)) is None:
            return self._journal.ledger.value.stage(uid)
        if record.stage is Stage.RELEASING:
            await self._give_back(record)
        started = trio.current_time()
        gpus, profiles = self._inventory.value.by_name, self._planned().profiles
        facts, left = await self._run_blocking(partial(self._files.settle, uid, record, gpus, profiles))
        self._on_step("cdi", trio.current_time() - started)
        if isinstance(left, preparation.ForgetClaim):
            await self._forget(uid)
            return Stage.ABSENT
        return preparation.stage(facts)

    async def _sweep(self, uid: ClaimUid) -> Record | None:
        """Remove the files of a claim that nobody holds, or return the record that another instance has made meanwhile: a grant is written
        before its files, so whoever finds none under the lock removes nobody's."""
        found: list[Record] = []

        def decide(ledger: Ledger) -> list[Change]:
            if (record := ledger.get(uid)) is not None:
                found.append(record)
            else:
                self._files.settle(uid, None, {}, {})
            return []

        await self._timed("journal", self._journal.commit(decide))
        return found[0] if found else None

    async def _forget(self, uid: ClaimUid) -> None:
        def forget(ledger: Ledger) -> list[Change]:
            stage = ledger.stage(uid)
            if stage is Stage.PARKED:
                stage = advance(stage, Happening.UNPREPARE)
            assert stage is Stage.ABSENT or advance(stage, Happening.CLEARED) is Stage.ABSENT
            return [Forget(uid)]

        await self._timed("journal", self._journal.commit(forget))

    async def _await_cards(self, grants: tuple[Grant, ...], progress: Progress) -> None:
        """Have the VFs made and the drivers switched that these grants need; all of them or an error.

        Raises:
            DriverError: what the kernel refused. The claim holds its devices all the same, until the kubelet unprepares it.
        """
        concerned = [grant for grant in grants if self._cards.concerns(grant)]
        if not concerned:
            return
        started = trio.current_time()
        progress.waiting_for = f"the hardware of {', '.join(grant.device for grant in concerned)}"
        faults = await self._cards.ready({grant.card for grant in concerned})
        for grant in concerned:
            # A fault that is about another VF of the card stops nobody whose own is fit.
            if (fault := faults.get(grant.bdf) or faults.get(grant.card)) is not None and not self._fit(grant):
                raise fault
        self._on_step("card", trio.current_time() - started)
        await self._await_devices(concerned, progress)

    def _fit(self, grant: Grant) -> bool:
        try:
            allocation.require(grant, self._inventory.value.by_name.get(grant.device))
        except DriverError:
            return False
        return self._cards.is_cut_for(grant)

    async def _await_devices(self, grants: Sequence[Grant], progress: Progress) -> None:
        """Wait until every device is there and fit."""
        started = trio.current_time()
        for grant in grants:
            while True:
                seen = self._inventory.version
                try:
                    allocation.require(grant, self._inventory.value.by_name.get(grant.device))
                    break
                except NotYet as missing:
                    progress.waiting_for = str(missing)
                    await self._inventory.wait_newer(seen)
        self._on_step("device", trio.current_time() - started)

    async def _grant(self, ref: ClaimRef, grants: tuple[Grant, ...], progress: Progress, pod_claim: str) -> Record:
        """Record the intent, once nobody else holds the devices."""
        record = Record(
            uid=ref.uid,
            namespace=ref.namespace,
            name=ref.name,
            grants=grants,
            boot_id=self._boot_id,
            granted_at=self._clock(),
            pod_claim=pod_claim,
            driver=self._driver,
        )
        seen_here = False
        if self._journal.ledger.value.parked:  # only then does it matter, and looking costs a hop to a thread
            seen_here = await self._run_blocking(partial(self._files.has_cdi, ref.uid))

        def decide(ledger: Ledger) -> list[Change]:
            self._require_service(ledger.get(ref.uid))
            if (blocker := ledger.held_by(ref.uid, grants, seen_here=seen_here)) is not None:
                raise _Blocked(*blocker, _other_layout(ledger, grants, *blocker))
            return [ledger.put(msgspec.structs.replace(record, stage=advance(ledger.stage(ref.uid), Happening.PREPARE)))]

        while True:
            seen = self._journal.ledger.version
            try:
                await self._timed("journal", self._journal.commit(decide))
            except _Blocked as blocked:
                # The kubelet asks again only after 80 s, and the other claim's unprepare is usually on its way: wait for it here.
                progress.waiting_for = str(blocked)
                log.info("waiting: %s", blocked)
                self._on_blocked(blocked.claim)
                await self._journal.ledger.wait_newer(seen)
            else:
                return record

    def _require_service(self, record: Record | None) -> None:
        """
        Raises:
            NotServed: the claim is new, and the driver is about to be removed.
        """
        if record is None and self._decommission.value:
            raise NotServed

    def _reply(self, record: Record, grants: tuple[Grant, ...]) -> PreparedReply:
        gpus = self._inventory.value.by_name
        requests = {(grant.device, grant.admin): grant.requests for grant in grants}
        return tuple(
            PreparedDevice(
                requests=requests.get((grant.device, grant.admin), grant.requests) if record.origin else grant.requests,
                pool=grant.pool,
                device=grant.device,
                cdi_ids=cdi.ids(grant, gpus.get(grant.device)),
                share_id=grant.share_id,
            )
            for grant in record.grants
        )

    async def _timed(self, step: str, work: Awaitable[None]) -> None:
        started = trio.current_time()
        await work
        self._on_step(step, trio.current_time() - started)


class _Blocked(NotYet):
    reason = "DeviceHeld"

    def __init__(self, claim: ClaimUid, device: DeviceName, layout: str | None) -> None:
        held = (
            f"the card of {device} is cut into {layout} for claim {claim}" if layout is not None else f"{device} is held by claim {claim}"
        )
        super().__init__(f"{held}, which is not unprepared yet")
        self.claim = claim


def _other_layout(ledger: Ledger, grants: Sequence[Grant], blocker: ClaimUid, device: DeviceName) -> str | None:
    """How the card of a VF is cut for another claim, for people, if that is what stands in the way."""
    wanted = next(grant for grant in grants if grant.device == device)
    record = ledger.get(blocker)
    for held in record.grants if record is not None else ():
        if wanted.layout and held.parent == wanted.parent and held.layout != wanted.layout:
            return " + ".join(f"{count} × {profile}" for profile, count in held.layout) or "VFs that somebody else made"
    return None
