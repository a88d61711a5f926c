"""Random histories of a node against a model: prepare, unprepare, hotplug, restarts, reboots, API faults, lost CDI files."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import cdi
from dra.devices import Inventory
from dra.names import ClaimUid
from nursery_apps.seams import Unavailable
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim

GPUS = {number: gpu(number) for number in (1, 2, 3)}
WANTS = {"a": (1,), "b": (2,), "c": (1, 2), "d": (3,), "e": (2,), "f": (3, 1)}

uids = st.sampled_from(sorted(WANTS))
numbers = st.sampled_from(sorted(GPUS))
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("prepare"), uids),
        st.tuples(st.just("prepare"), uids),
        st.tuples(st.just("unprepare"), uids),
        st.tuples(st.just("unplug"), numbers),
        st.tuples(st.just("plug"), numbers),
        st.tuples(st.just("renumber"), numbers),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("reboot"), st.none()),
        st.tuples(st.just("fault"), st.integers(1, 3)),
        st.tuples(st.just("lose file"), uids),
    ),
    max_size=25,
)


class World:
    """The model: who holds what, by the rules as a user would state them."""

    def __init__(self) -> None:
        self.holds: dict[str, tuple[int, ...]] = {}
        self.plugged = dict(GPUS)
        self.boots = 1

    def may_have(self, uid: str) -> bool:
        others = {number for other, held in self.holds.items() if other != uid for number in held}
        return all(number in self.plugged and number not in others for number in WANTS[uid])


async def _life(world: World, disks: Disks, history: list[tuple[str, object]]) -> bool:
    """Play until the process is to end; True if the machine goes down with it."""
    server = ClaimServer(*(claim(uid, *(GPUS[number].name for number in wants)) for uid, wants in WANTS.items()))
    node = ClaimNode(server, *world.plugged.values(), disks=disks, boot=f"boot-{world.boots}")
    async with node.running():
        _check(world, node)
        while history:
            what, which = history.pop(0)
            match what, which:
                case "prepare", str(uid):
                    answer = await node.prepare(uid)
                    if world.may_have(uid):
                        assert not isinstance(answer, str), f"{uid}: {answer}"
                        world.holds[uid] = WANTS[uid]
                        assert [d.device for d in answer] == [GPUS[n].name for n in WANTS[uid]]
                    else:
                        assert isinstance(answer, str), f"{uid} was given what others hold or what is not there"
                case "unprepare", str(uid):
                    assert await node.unprepare(uid) is None
                    world.holds.pop(uid, None)
                case "unplug", int(number):
                    world.plugged.pop(number, None)
                case "plug", int(number):
                    world.plugged.setdefault(number, GPUS[number])
                case "renumber", int(number):
                    if number in world.plugged:
                        world.plugged[number] = gpu(number, minor=number + 10 * len(history))
                case "fault", int(times):
                    server.failures = [Unavailable(0, "Unavailable", "refused")] * times
                case "lose file", str(uid):
                    disks.cdi.pop(cdi.file_name(ClaimUid(uid)), None)
                case "restart" | "reboot", _:
                    return what == "reboot"
            node.inventory.set(Inventory(tuple(world.plugged[n] for n in sorted(world.plugged))))
            await node.reconciler.compare()
            _check(world, node)
    return False


def _check(world: World, node: ClaimNode) -> None:
    ledger = node.journal.ledger.value
    # A grant may outlive a prepare that failed after it; what the model knows must be there.
    for uid, held in world.holds.items():
        record = ledger.get(ClaimUid(uid))
        assert record is not None, f"{uid} is lost"
        assert [grant.device for grant in record.grants] == [GPUS[number].name for number in held]
        file = node.disks.cdi.get(cdi.file_name(ClaimUid(uid)))
        present = [number for number in held if number in world.plugged]
        assert (file is not None) == bool(present), f"{uid}: CDI file and plugged GPUs disagree"
        for number in present:
            node_path = world.plugged[number].render_node
            assert node_path is not None and file is not None and node_path.path.encode() in file, f"{uid} has a stale device node"
    for name in node.disks.cdi:
        owner = cdi.uid_of_file(name)
        assert owner is not None and owner in ledger.claims, f"{name} is an orphan"
    holders = [grant.device for record in ledger.records() for grant in record.grants]
    assert len(holders) == len(set(holders)), "a device is held twice"


@settings(max_examples=150, deadline=None)
@given(happenings)
def test_whatever_happens_nothing_is_lost_or_given_twice(history: list[tuple[str, object]]) -> None:
    world, disks, left = World(), Disks(), list(history)

    async def lives() -> None:
        while left:
            if await _life(world, disks, left):
                disks.reboot()
                world.boots += 1
        await _life(world, disks, [])

    trio.run(lives, clock=trio.testing.MockClock(autojump_threshold=0))
