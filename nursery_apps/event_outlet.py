"""The way of events into a channel: never blocks the source, and says honestly when something was lost."""

from __future__ import annotations

import trio

from nursery_apps.seams import DeviceEvent, Resync


class EventOutlet:
    """Offers events to a channel; what does not fit is dropped, and one `Resync` follows as soon as there is room.

    It must be the channel's only sender: whether a waiting `Resync` got through is read off the channel's waiting senders.
    """

    def __init__(self, send: trio.MemorySendChannel[DeviceEvent | Resync]) -> None:
        self._send = send
        self._why: str | None = None
        """Set while a Resync is owed."""
        self._owed = trio.Event()
        self._waiting = False

    def offer(self, event: DeviceEvent) -> None:
        """Send an event, or drop it if the channel is full or a Resync that covers it is still to come."""
        if self._why is not None and self._still_owed():
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lost("the channel of device events was full")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # nobody listens any more; `deliver` ends for the same reason

    def lost(self, why: str) -> None:
        """Events were lost before they came here: owe a Resync."""
        if self._why is None or not self._still_owed():
            self._why = why
            self._owed.set()

    async def deliver(self) -> None:
        """Send each Resync that is owed. Runs until cancelled, or until the receiving side is closed."""
        while True:
            await self._owed.wait()
            assert self._why is not None
            self._owed = trio.Event()
            why, self._waiting = self._why, True
            try:
                await self._send.send(Resync(why))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            finally:
                self._waiting = False
            if not self._owed.is_set():
                self._why = None

    def _still_owed(self) -> bool:
        """Whether the Resync has not been taken yet. A receiver takes it at once, this task only runs later: what is offered in between
        happened after the receiver's scan began and must not be dropped."""
        if self._waiting and self._send.statistics().tasks_waiting_send == 0:
            self._waiting, self._why = False, None
            return False
        return True
