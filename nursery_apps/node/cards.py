"""Sees to it that every card is what settings and claims want of it: an owner for each card that needs one, and answers for who waits.

Level-triggered: journal, inventory and settings are values; when what one card depends on has changed, its owner attends to it. Claims wait
here for their hardware, and the offering learns which layouts there are and what cannot be made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import msgspec
import trio

from dra import card_facts, layout_plan, sriov_settings
from dra import ledger as ledgers
from dra.carvings import Carving
from dra.classic import handle
from dra.devices import Gpu, Inventory, Kind
from dra.discovery import DRM_DRIVERS
from dra.errors import DriverError
from dra.health.recovery import Method
from dra.kernel_tree import KernelTree
from dra.names import Bdf, BootId
from dra.offer import CutCard, Sight
from dra.records import Grant
from dra.sriov_settings import Sriov, Wanted
from dra.vf_cards import Card
from nursery_apps.latest import Latest
from nursery_apps.node.card_owner import CardOwner, Wish
from nursery_apps.node.journal_writer import Journal
from nursery_apps.node.own_node import OwnNode
from nursery_apps.node.rebinder import OnStep
from nursery_apps.seams import Hung, KernelCall

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 60.0
"""After a failure, unless something changes or a claim asks before: nothing that the kernel refuses for good is asked often."""
LOOK_SECONDS: Final = 2.0
"""For reading a card; one whose driver does not answer for so long is left out of what is offered with VFs."""


class _Attention:
    """What is known of one card's owner."""

    def __init__(self, owner: CardOwner) -> None:
        self.owner = owner
        self.running = False
        self.seen: Wish | None = None
        """The wish that was last attended to."""
        self.asked = self.answered = 0
        """Tickets of those who wait."""
        self.faults: dict[Bdf, DriverError] = {}
        self.again_at = float("inf")

    def is_news(self, wish: Wish) -> bool:
        """Whether the owner should look because of it. After a failure the card's VFs have come and gone: that alone is no reason."""
        if self.seen is None or not self.faults:
            return self.seen != wish
        gpu = msgspec.structs.replace(wish.gpu, vfs_now=self.seen.gpu.vfs_now, publishable=self.seen.gpu.publishable, why=self.seen.gpu.why)
        return self.seen != msgspec.structs.replace(wish, gpu=gpu)


class Cards:
    """`run` is the task."""

    def __init__(
        self,
        *,
        tree: KernelTree,
        call: KernelCall,
        journal: Journal,
        inventory: Latest[Inventory],
        rescan: Callable[[], None],
        settings: Latest[Sriov],
        node: Latest[OwnNode | None],
        boot_id: BootId,
        on_step: OnStep,
        on_fault: Callable[[Bdf, DriverError], None],
        on_plan: Callable[[str, bool], None],
        recoveries: Latest[Mapping[Bdf, Method]] | None = None,
        on_recovered: Callable[[Bdf, DriverError | None], None] = lambda _bdf, _fault: None,
    ) -> None:
        """
        Args:
            node: its labels are for the settings' selectors.
            on_fault: something of a card could not be done; told once for each cause.
            recoveries: wedged cards that are to be bound anew, and how.
            on_recovered: that was done, or could not be; `recoveries` is without the card when it returns.
            on_plan: (what is made of a card, whether that is a fault of the settings), when the settings want something new of it.
        """
        self._tree, self._call, self._journal, self._boot_id = tree, call, journal, boot_id
        self._inventory, self._rescan, self._settings, self._node = inventory, rescan, settings, node
        self._on_step, self._on_fault, self._on_plan = on_step, on_fault, on_plan
        self._recoveries: Latest[Mapping[Bdf, Method]] = recoveries if recoveries is not None else Latest({})
        self._on_recovered = on_recovered
        self._attentions: dict[Bdf, _Attention] = {}
        self._told: dict[Bdf, Wanted] = {}
        self._viewed: tuple[object, ...] = ()
        self._known: dict[Bdf, Card] = {}
        self._known_of = -1
        """The version of the inventory that `_known` was read with: claims that come do not have all cards read again."""
        self._promised: Mapping[Bdf, handle.Layout] = {}
        """What claims relied on at the last view."""
        self._closing = False
        self._wake = trio.Event()
        self._answered = trio.lowlevel.ParkingLot()
        self.sight: Latest[Sight | None] = Latest(None)
        """None until the first look."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Attend to cards until `close`, then until the owners at work are done; ready when the settings were held against them once."""
        async with trio.open_nursery() as owners, trio.open_nursery() as sources:
            for cell in (self._inventory, self._journal.ledger, self._settings, self._node, self._recoveries):
                sources.start_soon(self._follow, cell)
            while not self._closing:
                self._wake = trio.Event()
                await self._view(sources)
                wishes = self._wishes()
                for bdf, wish in wishes.items():
                    self._attend(owners, bdf, wish)
                self._forgive(wishes)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                idle = (each.again_at for each in self._attentions.values() if not each.running)
                with trio.move_on_at(min(idle, default=float("inf"))):
                    await self._wake.wait()
            sources.cancel_scope.cancel()

    def close(self) -> None:
        """Begin nothing new: called when the last claim is done."""
        self._closing = True
        self._wake.set()

    def concerns(self, grant: Grant) -> bool:
        """Whether a card's owner has a say in this grant. A whole GPU that was never cut and keeps its driver needs nobody."""
        if grant.admin:
            return False
        if grant.driver or grant.layout or grant.card in self._journal.ledger.value.carvings:
            return True
        return grant.parent is not None and grant.device not in self._inventory.value.by_name

    def is_cut_for(self, grant: Grant) -> bool:
        """Whether the card is cut as a claim relies on; true of grants that rely on nothing."""
        carving = self._journal.ledger.value.carvings.get(grant.card)
        return not grant.layout or (carving is not None and carving.names == grant.layout)

    async def ready(self, cards: Collection[Bdf]) -> dict[Bdf, DriverError]:
        """Have the owners of these cards attend to them once more, all at once, and wait until they have; what could not be done of cards
        and of the drivers of VFs, by address."""
        tickets: dict[Bdf, int] = {}
        stuck: dict[Bdf, DriverError] = {}
        for bdf in cards:
            attention = self._attention(bdf)
            if (hang := attention.owner.hang) is not None:  # for how long nobody knows
                stuck |= dict.fromkeys((bdf, *ledgers.drivers(self._journal.ledger.value).get(bdf, ())), hang)
                continue
            attention.asked += 1
            tickets[bdf] = attention.asked
        self._wake.set()
        while any(self._attentions[bdf].answered < ticket for bdf, ticket in tickets.items()):
            await self._answered.park()
        return stuck | {bdf: fault for card in tickets for bdf, fault in self._attentions[card].faults.items()}

    @property
    def faulty(self) -> int:
        """Cards of which something could not be done at the last try."""
        return sum(bool(each.faults) for each in self._attentions.values())

    @property
    def stuck(self) -> int:
        """Cards on which a call hangs in the kernel."""
        return sum(each.owner.hang is not None for each in self._attentions.values())

    # --- what is wanted -------------------------------------------------------------------------------------------------------------

    async def _view(self, sources: trio.Nursery) -> None:
        """Hold the settings, and what claims rely on, against every card they may be about."""
        inventory, sriov, ledger = self._inventory.value, self._settings.value, self._journal.ledger.value
        carvings, promised = ledger.carvings, ledgers.layouts(ledger)
        now = (self._inventory.version, self._settings.version, self._labels(), carvings, promised)
        if now == self._viewed:
            return
        self._viewed, self._promised = now, promised
        if self._known_of != now[0]:
            self._known, self._known_of = {}, self._inventory.version
        found: dict[Bdf, CutCard] = {}
        for gpu in inventory.gpus:
            if gpu.kind is not Kind.PF or gpu.driver not in DRM_DRIVERS:
                continue
            if not (gpu.bdf in carvings or gpu.bdf in promised or sriov_settings.may_cut(sriov, gpu, self._labels())):
                continue
            attention = self._attention(gpu.bdf)
            if attention.owner.hang is not None:
                continue
            if (card := self._known.get(gpu.bdf)) is None:
                try:
                    card = (await self._call(partial(card_facts.read, self._tree, gpu), seconds=LOOK_SECONDS)).card
                except Hung as hung:
                    log.error("%s", attention.owner.leave_alone("reading", hung))
                    sources.start_soon(self._view_again, hung.back)
                    continue
                self._known[gpu.bdf] = card
            wanted = sriov_settings.wanted(sriov, gpu, card, self._labels())
            carving = carvings.get(gpu.bdf)
            self._tell(gpu, wanted, carving)
            if gpu.bdf in promised:
                wanted = sriov_settings.promised(sriov, handle.profiles_of(promised[gpu.bdf]), card)
            elif sriov.mode == "on-demand" and sriov.keep == "keep" and carving is not None and carving.tells_of(gpu.device, self._boot_id):
                wanted = Wanted(carving.layout)
            found[gpu.bdf] = CutCard(card, wanted.layout, carving, self._fault_of(gpu.bdf))
        self.sight.set(Sight(inventory, found, sriov.without_counters, self._boot_id))

    async def _view_again(self, back: trio.Event) -> None:
        await back.wait()
        self._viewed = ()
        self._wake.set()

    def _tell(self, gpu: Gpu, wanted: Wanted, carving: Carving | None) -> None:
        """What becomes of a card when the settings want something else of it than before."""
        if self._told.get(gpu.bdf, Wanted()) == wanted:
            return
        self._told[gpu.bdf] = wanted
        users = ledgers.users(self._journal.ledger.value, self._inventory.value.by_bdf()).get(gpu.bdf, {})
        now = layout_plan.present(gpu, carving, self._boot_id)
        if (sentence := layout_plan.sentence(gpu, now, wanted, self._settings.value, users)) is not None:
            self._on_plan(sentence, bool(wanted.why))

    def _labels(self) -> Mapping[str, str]:
        return self._node.value.labels if self._node.value is not None else {}

    def _fault_of(self, bdf: Bdf) -> str | None:
        attention = self._attentions.get(bdf)
        return str(attention.faults[bdf]) if attention is not None and bdf in attention.faults else None

    def _wishes(self) -> dict[Bdf, Wish]:
        """What is wanted of each card that anything is wanted of. A GPU that is whole and stays so needs nobody."""
        ledger, sriov, gpus = self._journal.ledger.value, self._settings.value, self._inventory.value.by_bdf()
        users, drivers, staying = ledgers.users(ledger, gpus), ledgers.drivers(ledger), ledgers.users(ledger, gpus, going=False)
        views, promised = self.sight.value.cards if self.sight.value is not None else {}, ledgers.layouts(ledger)
        eager = {bdf for bdf, view in views.items() if sriov.make == "eager" and view.wanted and bdf not in promised}
        cut = {bdf for bdf, by_index in users.items() if any(index > 0 for index in by_index)}
        asked = {bdf for bdf, each in self._attentions.items() if each.asked > each.answered}
        recoveries = self._recoveries.value
        wishes = {}
        for bdf in {*ledger.carvings, *drivers, *eager, *cut, *asked, *recoveries}:
            gpu, view = gpus.get(bdf), views.get(bdf)
            if gpu is None:
                self._give_up(bdf)
                continue
            if promised.get(bdf) != self._promised.get(bdf):
                continue  # a claim came or went during the view: the next one, which is due, knows of it
            wishes[bdf] = Wish(
                gpu=gpu,
                layout=view.wanted if view is not None else (),
                promised=bdf in promised,
                eager=bdf in eager and bdf not in recoveries,
                keep=sriov.keep == "keep" and bdf not in recoveries,
                recover=recoveries.get(bdf),
                users=users.get(bdf, {}),
                needed=tuple(sorted(index for index in staying.get(bdf, {}) if index)),
                drivers=drivers.get(bdf, {}),
            )
        return wishes

    # --- owners ---------------------------------------------------------------------------------------------------------------------

    def _attention(self, bdf: Bdf) -> _Attention:
        if bdf not in self._attentions:
            owner = CardOwner(
                bdf,
                tree=self._tree,
                call=self._call,
                journal=self._journal,
                inventory=self._inventory,
                rescan=self._rescan,
                boot_id=self._boot_id,
                on_step=self._on_step,
            )
            self._attentions[bdf] = _Attention(owner)
        return self._attentions[bdf]

    def _attend(self, nursery: trio.Nursery, bdf: Bdf, wish: Wish) -> None:
        attention = self._attention(bdf)
        due = trio.current_time() >= attention.again_at
        if not attention.running and (attention.is_news(wish) or attention.asked > attention.answered or due):
            attention.running, attention.seen = True, wish
            # The ticket now, with the wish: who asks later has a grant that this wish does not know.
            nursery.start_soon(self._own, attention, wish, attention.asked)

    async def _own(self, attention: _Attention, wish: Wish, ticket: int) -> None:
        faults = await attention.owner.attend(wish)
        if wish.recover is not None:
            self._on_recovered(attention.owner.bdf, faults.get(attention.owner.bdf))
        again_at = trio.current_time() + AGAIN_SECONDS if faults else float("inf")
        if not (faults or wish.needed or wish.eager or wish.drivers) and trio.current_time() < attention.again_at:
            # Nobody wanted anything, which says nothing of a failure before: that holds until it is time to try again.
            faults, again_at = attention.faults, attention.again_at
        self._answer(attention, ticket, faults, again_at)
        if (stuck := attention.owner.stuck) is not None:
            await stuck.wait()
            attention.again_at = trio.current_time()
            log.info("%s: the kernel has let go", attention.owner.bdf)
        attention.running = False
        self._wake.set()

    def _answer(self, attention: _Attention, ticket: int, faults: dict[Bdf, DriverError], again_at: float = float("inf")) -> None:
        for about, fault in faults.items():
            if str(fault) != str(attention.faults.get(about)):
                self._on_fault(about, fault)
        attention.answered, attention.faults, attention.again_at = ticket, faults, again_at
        bdf = attention.owner.bdf
        sight = self.sight.value
        if sight is not None and (card := sight.cards.get(bdf)) is not None:
            cards = {**sight.cards, bdf: msgspec.structs.replace(card, fault=self._fault_of(bdf))}
            self.sight.set(msgspec.structs.replace(sight, cards=cards))
        self._answered.unpark_all()

    def _forgive(self, wishes: Collection[Bdf]) -> None:
        """A failure that nobody waits for any more is forgotten after the time of a retry: the card's VFs are offered again."""
        for bdf, attention in self._attentions.items():
            if bdf not in wishes and not attention.running and trio.current_time() >= attention.again_at:
                self._answer(attention, attention.answered, {})

    def _give_up(self, bdf: Bdf) -> None:
        """The card is not on the bus: nobody can do anything for those who wait; they see that their device is absent."""
        attention = self._attentions.get(bdf)
        if attention is not None and not attention.running and attention.asked > attention.answered:
            self._answer(attention, attention.asked, {})

    async def _follow(self, cell: Latest[Any]) -> None:
        seen = cell.version
        while True:
            await cell.wait_newer(seen)
            seen = cell.version
            self._wake.set()
