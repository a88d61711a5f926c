"""The journal writer: group commit, refusals, compaction, two processes on one directory, damage at start."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from dra import journal
from dra.claims import Stage
from dra.errors import NotYet
from dra.ledger import Change, Forget, Ledger
from dra.names import Bdf, BootId, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Kept, Record
from nursery_apps.node.journal_writer import Journal, JournalUnwritable
from tests.fakes.claim_node import in_place
from tests.fakes.state_dir import MemoryStateDir, Power, PowerCut


def record(uid: str) -> Record:
    grant = Grant(requests=(), pool=PoolName("n"), device=DeviceName("0000-03-00-0-0x56c0"), bdf=Bdf("0000:03:00.0"))
    return Record(uid=ClaimUid(uid), namespace="d", name=uid, grants=(grant,))


def put(uid: str) -> list[Change]:
    return [Kept(record(uid))]


class Groups:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, decisions: int, size: int, seconds: float) -> None:
        self.sizes.append(decisions)


def opened(state: MemoryStateDir, groups: Groups | None = None, boot: str = "boot") -> Journal:
    writer = Journal(state, BootId(boot), run_blocking=in_place, on_commit=groups or Groups())
    writer.open()
    return writer


async def test_what_is_committed_is_on_disk_and_in_the_ledger(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    writer = opened(state)
    await nursery.start(writer.run)
    await writer.commit(lambda ledger: put("a"))
    assert writer.ledger.value.stage(ClaimUid("a")) is Stage.GRANTED
    assert journal.read(state.files[journal.FILE]).ledger == writer.ledger.value


async def test_waiting_commits_share_one_write(nursery: trio.Nursery) -> None:
    groups = Groups()
    writer = opened(MemoryStateDir(), groups)
    async with trio.open_nursery() as callers:
        for number in range(10):
            callers.start_soon(writer.commit, lambda ledger, n=number: put(f"c{n}"))
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(writer.run)
    assert groups.sizes == [10]


async def test_decisions_of_one_group_see_each_other_and_a_refusal_fails_alone(nursery: trio.Nursery) -> None:
    writer = opened(MemoryStateDir())

    def second(ledger: Ledger) -> list[Change]:
        if (blocker := ledger.held_by(ClaimUid("b"), record("b").grants)) is not None:
            raise NotYet(f"held by {blocker[0]}")
        return put("b")

    refused: list[str] = []

    async def commit_second() -> None:
        try:
            await writer.commit(second)
        except NotYet as error:
            refused.append(str(error))

    async with trio.open_nursery() as callers:
        callers.start_soon(writer.commit, lambda ledger: put("a"))
        await trio.testing.wait_all_tasks_blocked()
        callers.start_soon(commit_second)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(writer.run)
    assert refused == ["held by a"]
    assert set(writer.ledger.value.claims) == {"a"}


async def test_a_second_process_on_the_directory_is_seen_before_deciding(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    ours, theirs = opened(state), opened(state)
    await nursery.start(ours.run)
    await nursery.start(theirs.run)
    await theirs.commit(lambda ledger: put("a"))
    seen: list[set[ClaimUid]] = []

    def look(ledger: Ledger) -> list[Change]:
        seen.append(set(ledger.claims))
        return []

    await ours.commit(look)
    assert seen == [{"a"}]


async def test_a_full_disk_is_said_and_the_next_write_is_not_swallowed_by_the_torn_one(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    failures: list[None] = []
    writer = Journal(state, BootId("boot"), run_blocking=in_place, on_commit=Groups(), on_failure=lambda: failures.append(None))
    writer.open()
    await nursery.start(writer.run)
    await writer.commit(lambda ledger: put("a"))
    assert not failures
    state.fail = lambda operation, name: errno.ENOSPC if operation == "append" else None
    with pytest.raises(JournalUnwritable, match="free space"):
        await writer.commit(lambda ledger: put("b"))
    assert len(failures) == 1
    state.files[journal.FILE] += b"0123"  # what the failed write left
    state.fail = lambda operation, name: None
    await writer.commit(lambda ledger: put("c"))
    assert set(journal.read(state.files[journal.FILE]).ledger.claims) == {"a", "c"}


async def test_dead_weight_is_compacted_and_the_previous_generation_kept(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    writer = opened(state)
    await nursery.start(writer.run)
    await writer.commit(lambda ledger: put("stays"))
    while journal.PREVIOUS not in state.files:
        await writer.commit(lambda ledger: [change for n in range(200) for change in (*put(f"c{n}"), Forget(ClaimUid(f"c{n}")))])
    assert len(state.files[journal.FILE]) < 1000
    assert set(journal.read(state.files[journal.FILE]).ledger.claims) == {"stays"}


async def test_damage_found_at_start_is_set_aside_and_guards_within_the_boot() -> None:
    state = MemoryStateDir({journal.FILE: journal.line(put("a")[0]).replace(b'"name":"a"', b'"name":"X"') + journal.line(put("b")[0])})  # type: ignore[arg-type]
    first = Journal(state, BootId("boot-1"), run_blocking=in_place, on_commit=Groups())
    found = first.open()
    assert (found.claims, [parked.uid for parked in found.parked]) == (1, ["a"])
    assert set(journal.read(state.files[journal.FILE]).ledger.claims) == {"b"}
    assert [parked.uid for parked in opened(state, boot="boot-1").ledger.value.parked] == ["a"]
    assert opened(state, boot="boot-2").ledger.value.parked == ()


async def test_a_settled_doubt_is_dropped_from_the_disk_too(nursery: trio.Nursery) -> None:
    state = MemoryStateDir({journal.FILE: journal.line(put("a")[0]).replace(b'"name":"a"', b'"name":"X"')})
    writer = opened(state)
    await nursery.start(writer.run)
    assert journal.PARKED in state.files
    await writer.commit(lambda ledger: [Forget(ClaimUid("a"))])
    assert journal.PARKED not in state.files


async def test_a_caller_that_leaves_before_its_turn_changes_nothing(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    writer = opened(state)
    with trio.move_on_after(0):
        await writer.commit(lambda ledger: put("a"))
    await nursery.start(writer.run)
    await writer.commit(lambda ledger: put("b"))
    assert set(writer.ledger.value.claims) == {"b"}


def nothing(_ledger: Ledger) -> list[Change]:
    return []


async def test_a_journal_that_holds_something_is_not_erased(nursery: trio.Nursery) -> None:
    state, swept = MemoryStateDir(), list[int]()
    writer, other = opened(state), opened(state)
    await nursery.start(writer.run)
    await nursery.start(other.run)
    await other.commit(lambda ledger: put("a"))
    with pytest.raises(NotYet, match="held again"):
        await writer.erase(nothing, lambda: swept.append(1))
    assert swept == [] and journal.FILE in state.files
    await other.commit(lambda ledger: [Forget(ClaimUid("a"))])
    await writer.erase(nothing, lambda: swept.append(1))
    assert swept == [1] and state.files == {}
    await other.commit(lambda ledger: put("b"))
    assert set(opened(state).ledger.value.claims) == {"b"}


async def test_a_line_that_tells_nothing_is_evidence_and_keeps_the_journal(nursery: trio.Nursery) -> None:
    state, swept = MemoryStateDir(), list[int]()
    state.replace(journal.FILE, b"0000000000000000 {damaged beyond all telling}\n")
    writer = opened(state)
    assert writer.ledger.value.parked == () and journal.PARKED in state.files
    await nursery.start(writer.run)
    with pytest.raises(NotYet, match="look, and remove the file"):
        await writer.erase(nothing, lambda: swept.append(1))
    assert swept == [] and journal.PARKED in state.files
    state.remove(journal.PARKED)
    await writer.erase(nothing, lambda: swept.append(1))
    assert swept == [1] and state.files == {}


async def test_what_shares_a_write_with_a_failed_erasure_is_known(nursery: trio.Nursery) -> None:
    state = MemoryStateDir()
    writer = opened(state)

    def sweep() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/var/run/cdi")

    async def erase() -> None:
        with pytest.raises(JournalUnwritable, match="/var/run/cdi"):
            await writer.erase(lambda ledger: [Forget(ClaimUid("a"))], sweep)

    async with trio.open_nursery() as callers:
        callers.start_soon(writer.commit, lambda ledger: put("a"))
        await trio.testing.wait_all_tasks_blocked()
        callers.start_soon(erase)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(writer.run)
    assert writer.ledger.value == journal.read(state.files[journal.FILE]).ledger == Ledger()


def test_an_erasure_that_is_cut_short_brings_nothing_back() -> None:
    before = journal.snapshot(Ledger().apply(put("old")))
    now = b"".join(journal.line(change) for change in (*put("old"), Forget(ClaimUid("old"))))
    whole = Power()

    async def erase(state: MemoryStateDir) -> None:
        writer = opened(state)
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            await writer.erase(nothing, lambda: None)
            nursery.cancel_scope.cancel()

    def files() -> dict[str, bytes]:
        return {journal.FILE: now, journal.PREVIOUS: before}

    trio.run(erase, MemoryStateDir(files(), whole))
    assert whole.points > 5
    for point in range(whole.points):
        left = files()
        with pytest.RaisesGroup(PowerCut, flatten_subgroups=True):
            trio.run(erase, MemoryStateDir(left, Power(cut_at=point)))
        assert not opened(MemoryStateDir(left)).ledger.value.claims
