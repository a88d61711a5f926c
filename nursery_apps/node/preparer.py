"""Carries one claim from what the API server allocated to what a container can use, and back.

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

from dra import allocation, cdi, claim_metadata, preparation
from dra.claims import Happening, Stage, advance
from dra.devices import Inventory
from dra.errors import DriverError, NotYet
from dra.kube.claims import Consumer, ResourceClaim
from dra.ledger import Change, Forget, Ledger
from dra.names import BootId, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Record
from nursery_apps.latest import Latest
from nursery_apps.node.cards import Cards
from nursery_apps.node.claim_desk import ClaimRef, PreparedDevice, PreparedReply
from nursery_apps.node.claim_files import ClaimFiles
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.offering import Planned
from nursery_apps.seams import Clock, RunBlocking

log = logging.getLogger(__name__)

API_PATIENCE_SECONDS = 5.0
"""A claim that is granted already is answered from the journal when the API server is silent for so long: containers must restart
through an outage, and a reallocation of a prepared claim is rare."""


class Progress:
    """How far an operation has come, for those who are told of its failure."""

    waiting_for = "its turn"
    consumers: tuple[Consumer, ...] = ()
    """Whom the claim is reserved for, once it has been read."""


class OnStep(Protocol):
    def __call__(self, step: str, seconds: float, /) -> None:
        """A step of an operation took so long: `read`, `device`, `journal`, `cdi`."""


class Preparer:
    def __init__(
        self,
        *,
        journal: Journal,
        files: ClaimFiles,
        reader: ClaimReader,
        inventory: Latest[Inventory],
        cards: Cards,
        planned: Callable[[], Planned],
        pool: PoolName,
        boot_id: BootId,
        clock: Clock,
        run_blocking: RunBlocking,
        on_step: OnStep,
        on_blocked: Callable[[ClaimUid], None],
    ) -> None:
        """
        Args:
            planned: VFs that are not made yet, as they will be.
            on_blocked: told which claim stands in the way of another: it may be one that no longer exists.
        """
        self._journal = journal
        self._files = files
        self._reader = reader
        self._inventory = inventory
        self._cards = cards
        self._planned = planned
        self._pool = pool
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
        claim = await self._read(ref, record, progress)
        if claim is None:
            assert record is not None
            grants = record.grants
        else:
            progress.consumers = claim.consumers
            planned = self._planned()
            known = {**planned.gpus, **self._inventory.value.by_name}
            grants = allocation.grants(claim, ref.uid, self._pool, known, profiles=planned.profiles)
        # What a card's owner has to make or change first is waited for after the claim holds it: nobody else may want it otherwise then.
        await self._await_devices([grant for grant in grants if not self._cards.concerns(grant)], progress)
        if record is None or not record.same_holdings(grants):
            record = await self._grant(ref, grants, progress, claim_metadata.pod_claim_of(claim) if claim is not None else "")
        await self._await_cards(grants, progress)
        await self.settle(ref.uid)
        return self._reply(record, grants)

    async def unprepare(self, ref: ClaimRef) -> None:
        """Take the claim apart. Success for whatever is gone already; asks nobody, least of all the API server.

        Raises:
            DriverError: the journal or the CDI directory cannot be written.
        """
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
        if record is not None and record.stage is Stage.RELEASING:
            await self._give_back(record)
        started = trio.current_time()
        gpus, profiles = self._inventory.value.by_name, self._planned().profiles
        facts, left = await self._run_blocking(partial(self._files.settle, uid, record, gpus, profiles))
        self._on_step("cdi", trio.current_time() - started)
        if isinstance(left, preparation.ForgetClaim):
            await self._forget(uid)
            return Stage.ABSENT
        return preparation.stage(facts)

    async def _forget(self, uid: ClaimUid) -> None:
        def forget(ledger: Ledger) -> list[Change]:
            stage = ledger.stage(uid)
            if stage is Stage.PARKED:
                stage = advance(stage, Happening.UNPREPARE)
            assert stage is Stage.ABSENT or advance(stage, Happening.CLEARED) is Stage.ABSENT
            return [Forget(uid)]

        await self._timed("journal", self._journal.commit(forget))

    async def _read(self, ref: ClaimRef, record: Record | None, progress: Progress) -> ResourceClaim | None:
        progress.waiting_for = f"the API server to answer for claim {ref.namespace}/{ref.name}"
        started = trio.current_time()
        claim: ResourceClaim | None = None
        with trio.move_on_after(API_PATIENCE_SECONDS if record is not None else float("inf")):
            claim = await self._reader.read(ref)
        if claim is None:
            log.warning("API server silent for %.0f s: answering from the journal", API_PATIENCE_SECONDS)
        self._on_step("read", trio.current_time() - started)
        return claim

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
        return True

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
        )
        seen_here = False
        if self._journal.ledger.value.parked:  # only then does it matter, and looking costs a hop to a thread
            seen_here = await self._run_blocking(partial(self._files.has_cdi, ref.uid))

        def decide(ledger: Ledger) -> list[Change]:
            if (blocker := ledger.held_by(ref.uid, grants, seen_here=seen_here)) is not None:
                raise _Blocked(*blocker)
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

    def __init__(self, claim: ClaimUid, device: DeviceName) -> None:
        super().__init__(f"{device} is held by claim {claim}, which is not unprepared yet")
        self.claim = claim
