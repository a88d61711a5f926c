"""What is dropped, what is owed, and that nothing is lost in between."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from nursery_apps.event_outlet import EventOutlet
from nursery_apps.seams import DeviceEvent, Resync


def event(number: int) -> DeviceEvent:
    return DeviceEvent("change", "drm", f"/devices/{number}", {})


async def test_what_is_offered_right_after_the_resync_was_taken_is_not_dropped(nursery: trio.Nursery) -> None:
    send, receive = trio.open_memory_channel[DeviceEvent | Resync](1)
    outlet = EventOutlet(send)
    nursery.start_soon(outlet.deliver)
    outlet.offer(event(1))
    outlet.offer(event(2))
    await trio.testing.wait_all_tasks_blocked()
    assert receive.receive_nowait() == event(1)
    assert isinstance(receive.receive_nowait(), Resync)
    outlet.offer(event(3))  # the delivering task has not run since
    assert receive.receive_nowait() == event(3)
    nursery.cancel_scope.cancel()


async def test_losses_upstream_are_owed_once(nursery: trio.Nursery) -> None:
    send, receive = trio.open_memory_channel[DeviceEvent | Resync](8)
    outlet = EventOutlet(send)
    outlet.lost("first")
    outlet.lost("second")
    outlet.offer(event(1))
    nursery.start_soon(outlet.deliver)
    await trio.testing.wait_all_tasks_blocked()
    assert receive.receive_nowait() == Resync("first")
    assert receive.statistics().current_buffer_used == 0
    outlet.lost("third")
    await trio.testing.wait_all_tasks_blocked()
    assert receive.receive_nowait() == Resync("third")
    nursery.cancel_scope.cancel()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["offer", "lost", "take", "turn"]), max_size=60), st.integers(0, 3))
def test_every_event_arrives_or_a_later_resync_does(steps: list[str], room: int) -> None:
    async def main() -> None:
        send, receive = trio.open_memory_channel[DeviceEvent | Resync](room)
        outlet = EventOutlet(send)
        due: set[int] = set()
        owed = False

        def took(item: DeviceEvent | Resync) -> None:
            nonlocal owed
            if isinstance(item, Resync):
                due.clear()
                owed = False
            else:
                due.discard(int(item.sys_path.rpartition("/")[2]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.deliver)
            for number, step in enumerate(steps):
                if step == "offer":
                    due.add(number)
                    outlet.offer(event(number))
                elif step == "lost":
                    owed = True
                    outlet.lost("upstream")
                elif step == "take":
                    try:
                        took(receive.receive_nowait())
                    except trio.WouldBlock:
                        continue
                else:
                    await trio.testing.wait_all_tasks_blocked()
            while True:
                await trio.testing.wait_all_tasks_blocked()
                try:
                    took(receive.receive_nowait())
                except trio.WouldBlock:
                    break
            assert not due
            assert not owed
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
