"""Two controllers, one Lease: at most one leads, whatever happens to the API server, the clocks and the processes; and soon one does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dra import election
from dra.controller_settings import ApiRate
from nursery_apps.controller.leadership import Fence, Leadership
from nursery_apps.controller.paced_api import PacedKubeApi
from nursery_apps.latest import Latest
from nursery_apps.seams import Conflict, Forbidden, Gone, Resource, Throttled, Unavailable
from tests.fakes.kube_api import FakeKubeApi, until

EXAMPLES = int(os.environ.get("RANDOM_LEADERS", "60"))
HAND_OVER_SECONDS = 20.0
CALL_SECONDS = 30.0
"""After which a call without an answer is given up."""
ERRORS = {
    "conflict": Conflict(409, "Conflict", "x"),
    "gone": Gone(410, "Expired", "x"),
    "throttled": Throttled(429, "TooManyRequests", "x", retry_after_seconds=1),
    "broken": Unavailable(500, "InternalError", "x"),
    "forbidden": Forbidden(403, "Forbidden", "x"),
}


class Road(PacedKubeApi):
    """The way of one controller to the API server."""

    def __init__(self, api: FakeKubeApi) -> None:
        super().__init__(api, Latest(ApiRate()))
        self.trouble: str = ""
        """What happens to each call: an error, `lost` (done, no answer), `hangs`, or nothing."""
        self.then: Callable[[], None] = lambda: None

    async def _spoilt(self, call: Any) -> Any:
        if self.trouble in ERRORS:
            raise ERRORS[self.trouble]
        if self.trouble == "hangs":
            await trio.sleep(CALL_SECONDS)
            raise Unavailable(0, "Timeout", "no answer")
        done = await call()
        self.then()
        if self.trouble == "lost":
            raise Unavailable(0, "Lost", "no answer")
        return done

    async def get(self, what: Resource[Any], name: str, *, namespace: str = "") -> Any:
        if self.trouble == "lost":  # a read that gets no answer is as good as none
            return await super().get(what, name, namespace=namespace)
        return await self._spoilt(partial(super().get, what, name, namespace=namespace))

    async def create(self, what: Resource[Any], body: dict[str, Any], *, namespace: str = "", dry_run: bool = False) -> Any:
        return await self._spoilt(partial(super().create, what, body, namespace=namespace))

    async def patch(
        self, what: Resource[Any], name: str, body: object, *, content_type: str, namespace: str = "", subresource: str = ""
    ) -> Any:
        return await self._spoilt(partial(super().patch, what, name, body, content_type=content_type, namespace=namespace))


class Controller:
    """Writes without end while it leads: `fence` is asked before each."""

    def __init__(self, api: FakeKubeApi, name: str) -> None:
        self.road = Road(api)
        self.wall = 1_800_000_000.0
        self.fence: Fence | None = None
        self.terms = 0
        self.then: Callable[[], None] = lambda: None
        self.leadership = Leadership(self.road, namespace="ns", name="l", identity=name, clock=self._clock)
        self._scope = trio.CancelScope()

    def _clock(self) -> float:
        return self.wall + trio.current_time()

    @property
    def writes(self) -> bool:
        return self.fence is not None and self.fence.holds()

    async def run(self) -> None:
        with self._scope:
            await self.leadership.lead(self._work)

    def stop(self) -> None:
        self._scope.cancel()

    def crash(self) -> None:
        self.road.trouble = "hangs"  # what it would still say reaches nobody
        self._scope.cancel()

    async def _work(self, fence: Fence) -> None:
        self.terms += 1
        self.fence = fence
        self.then()
        try:
            await trio.sleep_forever()
        finally:
            self.fence = None


@pytest.fixture
def api() -> FakeKubeApi:
    return FakeKubeApi()


async def test_the_one_who_comes_first_leads_and_the_other_waits(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, two = Controller(api, "one"), Controller(api, "two")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    nursery.start_soon(two.run)
    await trio.sleep(600)
    assert (one.writes, one.terms, two.terms) == (True, 1, 0)
    assert (one.leadership.leading, two.leadership.leading, two.leadership.leader, two.leadership.error) == (True, False, "one", None)


async def test_after_a_crash_the_next_one_leads_within_20_seconds(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, two = Controller(api, "one"), Controller(api, "two")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    nursery.start_soon(two.run)
    await trio.sleep(60)
    one.crash()
    await until(lambda: two.writes, seconds=HAND_OVER_SECONDS)
    assert api.objects["leases", "ns", "l"]["spec"]["leaseTransitions"] == 1


async def test_one_that_stops_in_good_order_lets_the_next_one_in_at_once(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, two = Controller(api, "one"), Controller(api, "two")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    nursery.start_soon(two.run)
    await trio.sleep(60)
    one.stop()
    await until(lambda: two.writes, seconds=election.RETRY_SECONDS + 0.1)


async def test_an_api_server_that_refuses_is_said_once_and_not_with_every_look(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    one = Controller(api, "one")
    one.road.trouble = "forbidden"
    nursery.start_soon(one.run)
    await trio.sleep(600)
    assert [record.message for record in caplog.records] == [one.leadership.error]
    one.road.trouble = "throttled"
    await trio.sleep(600)
    assert [record.message for record in caplog.records][1:] == [one.leadership.error], "another reason is told"


async def test_it_is_the_work_that_ended_before_the_lease_is_given_up(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    controller = Controller(api, "one")
    held: list[str] = []

    async def work(_: Fence) -> None:
        try:
            await trio.sleep_forever()
        finally:
            held.append(api.objects["leases", "ns", "l"]["spec"]["holderIdentity"])

    controller._work = work  # type: ignore[method-assign]
    nursery.start_soon(controller.run)
    await trio.sleep(20)
    controller.stop()
    await trio.sleep(1)
    assert held == ["one"] and api.objects["leases", "ns", "l"]["spec"]["holderIdentity"] == ""


async def test_what_the_work_raises_is_raised_and_the_lease_is_free(api: FakeKubeApi, autojump_clock: MockClock) -> None:
    async def work(_: Fence) -> None:
        raise RuntimeError("a bug")

    with trio.fail_after(20), pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await Controller(api, "one").leadership.lead(work)
    assert api.objects["leases", "ns", "l"]["spec"]["holderIdentity"] == ""


async def test_a_lease_that_is_deleted_is_made_anew_and_one_leads(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    both = Controller(api, "one"), Controller(api, "two")
    for controller in both:
        nursery.start_soon(controller.run)
    await until(lambda: any(one.writes for one in both), seconds=12)
    api.remove("leases", "l", namespace="ns")
    await trio.sleep(3 * election.RETRY_SECONDS)
    assert [one.writes for one in both].count(True) == 1


async def test_nobody_leads_beside_a_leader_who_has_not_heard_that_the_lease_was_deleted(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, two = Controller(api, "one"), Controller(api, "two")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    nursery.start_soon(two.run)
    await trio.sleep(60)
    one.road.trouble = "hangs"
    api.remove("leases", "l", namespace="ns")
    while one.writes:
        assert not two.writes
        await trio.sleep(0.1)
    await until(lambda: two.writes, seconds=HAND_OVER_SECONDS)


async def test_a_label_that_somebody_writes_into_the_lease_changes_nothing(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one = Controller(api, "one")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    for _ in range(5):
        await trio.sleep(7)
        lease = api.objects["leases", "ns", "l"]
        api.put("leases", {**lease, "metadata": {**lease["metadata"], "labels": {"a": "b"}}}, namespace="ns")
    await trio.sleep(10)
    assert one.terms == 1 and one.writes


async def test_a_process_that_was_frozen_finds_its_fence_down_when_it_wakes(autojump_clock: MockClock) -> None:
    fence = Fence()
    fence.until = trio.current_time() + election.RENEW_WITHIN_SECONDS
    assert fence.holds()
    autojump_clock.jump(60)
    assert not fence.holds()


@pytest.mark.parametrize("jump", [-86400.0, 86400.0, 3.0e9])
async def test_jumps_of_the_wall_clock_change_nothing(
    api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery, jump: float
) -> None:
    one, two = Controller(api, "one"), Controller(api, "two")
    nursery.start_soon(one.run)
    await until(lambda: one.writes, seconds=12)
    nursery.start_soon(two.run)
    for controller in (one, two):
        await trio.sleep(30)
        controller.wall += jump
    await trio.sleep(120)
    assert (one.writes, one.terms, two.terms) == (True, 1, 0)
    one.crash()
    await until(lambda: two.writes, seconds=HAND_OVER_SECONDS)


async def test_trouble_is_said_to_whoever_asks_until_it_is_over(api: FakeKubeApi, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    one = Controller(api, "one")
    one.road.trouble = "forbidden"
    nursery.start_soon(one.run)
    await trio.sleep(10)
    assert one.leadership.error is not None and "Forbidden" in one.leadership.error
    one.road.trouble = ""
    await until(lambda: one.writes, seconds=HAND_OVER_SECONDS)
    assert one.leadership.error is None


troubles = st.sampled_from(["", "", "lost", "hangs", *ERRORS])
steps = st.tuples(
    troubles, troubles, st.sampled_from(["", "", "crash-one", "crash-two", "stop-one", "stop-two", "delete", "jump"]), st.integers(0, 25)
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, derandomize=True)
@given(st.lists(steps, min_size=1, max_size=12))
def test_never_do_two_lead_and_when_all_is_well_one_does(story: list[tuple[str, str, str, int]]) -> None:
    trio.run(partial(_tell, iter(story)), clock=MockClock(autojump_threshold=0))


async def _tell(story: Iterator[tuple[str, str, str, int]]) -> None:
    api = FakeKubeApi()
    both = {name: Controller(api, name) for name in ("one", "two")}
    async with trio.open_nursery() as nursery:

        def check() -> None:
            assert not all(controller.writes for controller in both.values()), "two lead"

        def revive(name: str) -> None:
            both[name] = Controller(api, f"{name}-{trio.current_time()}")
            both[name].road.then = both[name].then = check
            nursery.start_soon(both[name].run)

        for name in list(both):
            revive(name)
        for one, two, what, seconds in story:
            both["one"].road.trouble, both["two"].road.trouble = one, two
            match what.split("-"):
                case ["crash", name]:
                    both[name].crash()
                    revive(name)
                case ["stop", name]:
                    both[name].stop()
                    await trio.sleep(2.5)
                    revive(name)
                case ["delete"]:
                    await trio.sleep(2 * election.RETRY_SECONDS + 1)  # one that comes and goes between two looks is nobody's to notice
                    if ("leases", "ns", "l") in api.objects:
                        api.remove("leases", "l", namespace="ns")
                case ["jump"]:
                    both["one"].wall -= 1e6
            await trio.sleep(seconds)
        for controller in both.values():
            controller.road.trouble = ""
        await trio.sleep(CALL_SECONDS)
        for _ in range(int(HAND_OVER_SECONDS)):
            if any(controller.writes for controller in both.values()):
                break
            await trio.sleep(1)
        else:
            pytest.fail("nobody leads")
        nursery.cancel_scope.cancel()
