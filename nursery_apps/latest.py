"""A cell that holds the newest value of something: level-triggered, never a queue."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Latest(Generic[T]):
    """The newest value and a way to wait for the next one.

    One task sets it, any number wait. A waiter that is slow sees the newest value once and misses what was in between, which is the
    point: inventory, health and settings are values, not work.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def value(self) -> T:
        return self._value

    @property
    def version(self) -> int:
        """Counts the changes; pass it to `wait_newer` to miss none."""
        return self._version

    def set(self, value: T) -> bool:
        """Replace the value; False (and nobody wakes) if it is equal to what is there."""
        if value == self._value:
            return False
        self._value = value
        self._version += 1
        self._lot.unpark_all()
        return True

    async def wait_newer(self, seen: int) -> T:
        """Wait until the version differs from `seen`; returns at once if it does already."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._version == seen:
            await self._lot.park()
        return self._value
