"""The one task that changes a card: it carves, uncarves, binds and gives back, a step at a time, each computed from what is true by then.

Everything it does to one physical function is in order; every other task reads snapshots. It holds no state that matters: what it was
doing is in the journal and in the kernel, and the next life's owner goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, TypeVar

import msgspec
import trio

from dra import card_errors, card_facts, card_steps
from dra.card_facts import CardFacts
from dra.card_steps import Situation, Step
from dra.carvings import Carving, Uncarve
from dra.classic import handle
from dra.devices import Gpu, Inventory, State
from dra.discovery import PCI_DEVICES
from dra.errors import DriverError, HardwareFault, NotYet
from dra.health.recovery import Method
from dra.kernel_tree import KernelTree
from dra.layouts import Layout, describe
from dra.ledger import Change, Ledger
from dra.names import Bdf, BootId, ClaimUid
from dra.records import Grant
from dra.vf_quotas import Write
from nursery_apps.latest import Latest
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.rebinder import UP_SECONDS, OnStep, Rebinder
from nursery_apps.seams import Hung, KernelCall

log = logging.getLogger(__name__)

T = TypeVar("T")

WRITE_SECONDS: Final = 10.0
"""For a quota or an override: they reach the firmware in milliseconds."""
PROBE_SECONDS: Final = 2.0
"""For each VF that is made or taken away, beyond WRITE_SECONDS: a probe takes 0.1 to 1 s, taking away waits up to 0.5 s for its reset."""
STEPS_MAX: Final = 40
"""Of one attempt: a card takes about ten from one layout to another. More means that somebody works against us, or the kernel does."""
LOOK_SECONDS: Final = 1.0
"""A look without an event, while something is waited for: events can be lost, and nobody listens any more when the program is stopping."""

SEEN_SECONDS: Final = 3.0
"""For the inventory to have seen that VFs are gone, or that a card was bound anew. It looks within 0.1 s of the event, and again after
LOOK_SECONDS if that was lost; when the program is stopping nobody looks, and nothing is offered any more either."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one card: by the settings, and by the claims that hold it or its VFs."""

    gpu: Gpu
    """The PF, as the last scan found it."""
    layout: Layout
    promised: bool = False
    """Claims were given VFs of this layout."""
    eager: bool
    keep: bool
    users: Mapping[int, Collection[ClaimUid]]
    """0 for the card itself."""
    needed: Collection[int]
    """VFs of them that claims are to have; those of others are of claims that go."""
    recover: Method | None = None
    """It is wedged, nobody uses it, and this is to be tried."""
    drivers: Mapping[Bdf, str]
    """Functions that a claim wants bound to another driver, or wanted: `` is back to the DRM driver."""


class CardOwner:
    def __init__(
        self,
        bdf: Bdf,
        *,
        tree: KernelTree,
        call: KernelCall,
        journal: Journal,
        inventory: Latest[Inventory],
        rescan: Callable[[], None],
        boot_id: BootId,
        on_step: OnStep,
    ) -> None:
        """`rescan` makes the inventory look: an event may have been lost."""
        self.bdf = bdf
        self._tree, self._call, self._journal = tree, call, journal
        self._inventory, self._rescan, self._boot_id, self._on_step = inventory, rescan, boot_id, on_step
        self._rebinder = Rebinder(tree, self._in_kernel, self._change, on_step)
        self._doing = ""
        self._overdue: frozenset[int] = frozenset()
        """VFs that had all the time there is since they were made: claims on others do not wait for them again."""
        self.stuck: trio.Event | None = None
        """Set when the kernel lets go of a call that it held for too long; None while it holds none. Until then this card is left alone."""
        self._last_hang: HardwareFault | None = None

    @property
    def hang(self) -> HardwareFault | None:
        """What is to be said of a call that the kernel holds now."""
        return self._last_hang if self.stuck is not None and not self.stuck.is_set() else None

    def leave_alone(self, doing: str, hung: Hung) -> HardwareFault:
        """The kernel holds a call about the card."""
        self.stuck, self._last_hang = hung.back, card_errors.hung(self.bdf, doing, hung.seconds)
        return self._last_hang

    async def attend(self, wish: Wish) -> dict[Bdf, DriverError]:
        """Take steps until nothing is left to do. What could not be done: of the card under its own address, of the drivers of its VFs
        under theirs. What failed halfway was taken back."""
        if self.stuck is not None:
            await self.stuck.wait()
            self.stuck = None
        faults: dict[Bdf, DriverError] = {}
        try:
            try:
                if (fault := await self._shape(wish)) is not None:
                    faults[self.bdf] = fault
            except DriverError as refused:
                faults[self.bdf] = refused
            except OSError as error:
                faults[self.bdf] = card_errors.refused(self.bdf, self._doing, error)
            if wish.recover is not None and not faults:
                await self._recover(wish.recover, faults)
            for bdf, driver in sorted(wish.drivers.items()):  # one that fails does not stop the others
                try:
                    await self._rebinder.bind(bdf, driver or None)
                except DriverError as refused:
                    faults[bdf] = refused
        except Hung as hung:
            return dict.fromkeys((self.bdf, *wish.drivers), self.leave_alone(self._doing, hung))
        return faults

    async def _recover(self, method: Method, faults: dict[Bdf, DriverError]) -> None:
        try:
            await self._confirm_idle()
            await self._rebinder.recover(self.bdf, method)
        except DriverError as refused:
            faults[self.bdf] = refused
        # An inventory that still calls it wedged would have it tried once more, with the next way, which is more invasive.
        with trio.move_on_after(SEEN_SECONDS):
            while (gpu := self._inventory.value.by_bdf().get(self.bdf)) is not None and gpu.state is State.WEDGED:
                await self._change()

    async def _confirm_idle(self) -> None:
        def decide(ledger: Ledger) -> list[Change]:
            for record in ledger.records():
                if any(grant.card == self.bdf and not grant.admin for grant in record.grants):
                    raise NotYet(f"{self.bdf} or VFs of it are held by claim {record.uid}", reason="CardInUse")
            return []

        await self._journal.commit(decide)

    # --- VFs ------------------------------------------------------------------------------------------------------------------------

    async def _shape(self, wish: Wish) -> DriverError | None:
        """Carve, uncarve, adopt."""
        provisioned = awaited = with_quotas = False
        fault: DriverError | None = None
        for _ in range(STEPS_MAX):
            facts = await self._look(wish, with_quotas=with_quotas)  # in each round: nothing is believed that was true a step ago
            at = Situation(
                facts=facts,
                carving=self._journal.ledger.value.carvings.get(self.bdf),
                wanted=wish.layout,
                promised=wish.promised,
                eager=wish.eager,
                keep=wish.keep,
                users=wish.users,
                needed=wish.needed,
                boot_id=self._boot_id,
                provisioned=provisioned,
                awaited=awaited,
                given_up=fault is not None,
            )
            step = card_steps.next_step(at)
            if step is None:
                return fault
            if with_quotas := isinstance(step, card_steps.LookAtQuotas):
                continue
            try:
                await self._perform(step, facts)
            except DriverError as refused:
                if fault is not None or not isinstance(step, card_steps.Provision | card_steps.MakeVfs | card_steps.Autoprobe):
                    raise
                log.error("%s; making %s whole again", refused, self.bdf)
                fault, provisioned = refused, False
                continue
            provisioned = isinstance(step, card_steps.Provision) or (provisioned and not isinstance(step, card_steps.RemoveVfs))
            awaited = awaited or isinstance(step, card_steps.AwaitKernel)
        raise HardwareFault(f"{self.bdf} does not become what it should: somebody else keeps changing its VFs", reason="CardContested")

    async def _look(self, wish: Wish, *, with_quotas: bool) -> CardFacts:
        read = partial(card_facts.read, self._tree, wish.gpu, with_quotas=with_quotas)
        return await self._in_kernel("looking at the card", read, WRITE_SECONDS)

    async def _perform(self, step: Step, facts: CardFacts) -> None:
        started = trio.current_time()
        match step:
            case card_steps.Remember(change):
                if isinstance(change, Uncarve) and not facts.vfs:
                    await self._out_of_sight()
                await self._remember(change)
            case card_steps.Provision(writes):
                await self._provision(facts, writes)
            case card_steps.Autoprobe():
                await self._write("switching sriov_drivers_autoprobe on", "sriov_drivers_autoprobe", "1", WRITE_SECONDS)
            case card_steps.MakeVfs(count):
                log.info("%s: making %d VFs", self.bdf, count)
                await self._make(count)
            case card_steps.RemoveVfs():
                await self._confirm_unused()
                log.info("%s: taking %d VFs away", self.bdf, len(facts.vfs))
                await self._remove(len(facts.vfs))
            case card_steps.AwaitKernel():
                await self._read_numvfs(facts.card.total_vfs)
            case card_steps.AwaitVfs(indexes):
                await self._await_vfs(indexes)
            case card_steps.Impossible(why):
                raise HardwareFault(why, reason="CardNotReady")
        self._on_step(self.bdf, type(step).__name__, trio.current_time() - started)

    async def _remember(self, change: Carving | Uncarve) -> None:
        def decide(ledger: Ledger) -> list[Change]:
            if isinstance(change, Carving) and (holders := _holders(ledger, self.bdf)):
                raise NotYet(f"{self.bdf} is held as a whole by claim {holders[0]}", reason="CardInUse")
            return [] if isinstance(change, Uncarve) and self.bdf not in ledger.carvings else [change]

        await self._journal.commit(decide)
        if isinstance(change, Carving):
            log.info("%s: to be cut into %s", self.bdf, describe(change.layout))

    async def _out_of_sight(self) -> None:
        """Until the inventory shows no VFs of the card either. In an inventory that is behind a journal that has forgotten them, they would
        pass for an administrator's, and be offered to claims."""
        with trio.move_on_after(SEEN_SECONDS):
            while (gpu := self._inventory.value.by_bdf().get(self.bdf)) is not None and gpu.vfs_now:
                await self._change()

    async def _confirm_unused(self) -> None:
        """Ask the journal as it is on disk: in a rolling update another instance may have granted a VF meanwhile."""

        def decide(ledger: Ledger) -> list[Change]:
            carving = ledger.carvings.get(self.bdf)
            if holders := _holders(ledger, self.bdf, of_vfs_in=carving.names if carving is not None else ()):
                raise NotYet(f"VFs of {self.bdf} are held by claim {holders[0]}", reason="CardInUse")
            return []

        await self._journal.commit(decide)

    async def _provision(self, facts: CardFacts, writes: tuple[Write, ...]) -> None:
        """A hop to a thread for each VF, not for each file: cancellation lands between VFs."""
        for group in _in_runs(writes):

            def write_all(group: list[Write] = group) -> None:
                for write in group:
                    try:
                        self._tree.write(f"{facts.provisioning}/{write.path}", write.text)
                    except OSError as error:
                        raise card_errors.provisioning(self.bdf, write.path, write.text, error) from error

            await self._in_kernel("writing quotas", write_all, WRITE_SECONDS)

    async def _make(self, count: int) -> None:
        self._overdue = frozenset()
        try:
            await self._write("making VFs", "sriov_numvfs", str(count), WRITE_SECONDS + PROBE_SECONDS * count)
        except OSError as error:
            raise card_errors.making(self.bdf, count, error) from error
        made = await self._read_numvfs(count)
        if made != count:  # the driver may make fewer than it was asked for, and say so only in the kernel's log
            await self._remove(made)
            raise HardwareFault(f"its driver made {made} of {count} VFs of {self.bdf}; see the kernel's log", reason="VfsNotMade")

    async def _remove(self, count: int) -> None:
        try:
            await self._write("taking VFs away", "sriov_numvfs", "0", WRITE_SECONDS + PROBE_SECONDS * count)
        except OSError as error:
            raise card_errors.removing(self.bdf, error) from error

    async def _read_numvfs(self, most: int) -> int:
        def read() -> int:
            text = self._tree.read(f"{PCI_DEVICES}/{self.bdf}/sriov_numvfs").strip()
            return int(text) if text.isdecimal() else 0

        return await self._in_kernel("waiting for the VFs", read, WRITE_SECONDS + PROBE_SECONDS * most)

    async def _await_vfs(self, indexes: tuple[int, ...]) -> None:
        def missing() -> list[int]:
            there = card_facts.vfs(self._tree, self.bdf)
            return [index for index in indexes if index not in there or not there[index].is_up]

        left = await self._in_kernel("looking at VFs", missing, WRITE_SECONDS)
        with trio.move_on_after(UP_SECONDS):
            while left and not self._overdue.issuperset(left):
                await self._change()
                left = await self._in_kernel("looking at VFs", missing, WRITE_SECONDS)
        if left:
            self._overdue = frozenset(left)
            named = ", ".join(map(str, left[:6])) + (", ..." if len(left) > 6 else "")
            raise HardwareFault(
                f"VF {named} of {self.bdf} got no driver or no device nodes within {UP_SECONDS:.0f} s; see the kernel's log",
                reason="VfNotReady",
            )

    # --- the kernel -----------------------------------------------------------------------------------------------------------------

    async def _write(self, doing: str, name: str, text: str, seconds: float) -> None:
        await self._in_kernel(doing, partial(self._tree.write, f"{PCI_DEVICES}/{self.bdf}/{name}", text), seconds)

    async def _in_kernel(self, doing: str, work: Callable[[], T], seconds: float) -> T:
        self._doing = doing
        return await self._call(work, seconds=seconds)

    async def _change(self) -> None:
        """Until the inventory says that something changed, or it is time to look without being told."""
        with trio.move_on_after(LOOK_SECONDS):
            await self._inventory.wait_newer(self._inventory.version)
            return
        self._rescan()


def _holders(ledger: Ledger, card: Bdf, *, of_vfs_in: handle.Layout | None = None) -> list[ClaimUid]:
    """Claims that hold the card itself, or VFs that it has in a layout: who waits for another one has none of these."""

    def holds(grant: Grant) -> bool:
        if of_vfs_in is None:
            return grant.bdf == card
        return grant.parent == card and (not grant.layout or grant.layout == of_vfs_in)

    return [record.uid for record in ledger.records() for grant in record.grants if not grant.admin and holds(grant)]


def _in_runs(writes: tuple[Write, ...]) -> list[list[Write]]:
    """In the same order, cut where the VF changes."""
    runs: list[list[Write]] = []
    for write in writes:
        if not runs or runs[-1][0].path.partition("/")[0] != write.path.partition("/")[0]:
            runs.append([])
        runs[-1].append(write)
    return runs
