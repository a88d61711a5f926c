"""What the kubelet knows of devices' health: as drivers' streams tell it, aged, and as the status of a pod says it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from tools.simcluster import pod_claims
from tools.simcluster.claim_memory import ClaimMemory, Prepared, Remembered
from tools.simcluster.kinds import Json

LONGEST_MESSAGE_BYTES: Final = 1024
_WORDS: Final = {0: "Unknown", 1: "Healthy", 2: "Unhealthy"}
_UNKNOWN: Final = ("Unknown", "")

Key = tuple[str, str, str]
"""Driver, pool and name of a device."""


class _Heard(msgspec.Struct, frozen=True):
    health: str
    message: str
    until: float
    """On Trio's clock."""


class DeviceHealth:
    """One life of the kubelet's knowledge; `on_change` is called when something of it has changed."""

    def __init__(self, minor: int, *, timeout_seconds: float, on_change: Callable[[], None]) -> None:
        """
        Args:
            timeout_seconds: of devices whose driver names none.
        """
        self._minor, self._timeout_seconds, self._on_change = minor, timeout_seconds, on_change
        self._heard: dict[Key, _Heard] = {}
        self._news = trio.Event()

    def hear(self, driver: str, answer: Any) -> None:
        """A message of the stream: devices that it leaves out age on."""
        before = {key: self.of(key) for key in self._heard}
        for device in answer.devices:
            # The time-out is read from 1.35 on, the message from 1.36 on.
            seconds = device.health_check_timeout_seconds if self._minor >= 35 and device.health_check_timeout_seconds > 0 else 0
            self._heard[driver, device.device.pool_name, device.device.device_name] = _Heard(
                _WORDS.get(device.health, "Unknown"),
                _cut(device.message) if self._minor >= 36 else "",
                trio.current_time() + (seconds or self._timeout_seconds),
            )
        self._tell(changed=any(before.get(key) != self.of(key) for key in self._heard))

    def forget(self, driver: str) -> None:
        """The stream has ended: nothing is known of any device, also where another instance's stream goes on."""
        gone = [key for key in self._heard if key[0] == driver]
        for key in gone:
            del self._heard[key]
        self._tell(changed=bool(gone))

    def of(self, key: Key) -> tuple[str, str]:
        """(Healthy, Unhealthy or Unknown, the driver's message)"""
        heard = self._heard.get(key)
        return (heard.health, heard.message) if heard is not None and trio.current_time() < heard.until else _UNKNOWN

    async def age(self) -> None:
        """Say so when a device has not been heard of for too long."""
        while True:
            self._news = trio.Event()
            with trio.move_on_at(min((heard.until for heard in self._heard.values()), default=math.inf)):
                await self._news.wait()
            old = [key for key, heard in self._heard.items() if heard.until <= trio.current_time()]
            for key in old:
                del self._heard[key]
            self._tell(changed=bool(old))

    def _tell(self, *, changed: bool) -> None:
        self._news.set()
        if changed:
            self._on_change()

    # --- what a pod's status says ------------------------------------------------------------------------------------------------

    def statuses(self, pod: Json, container: str, memory: ClaimMemory) -> list[Json]:
        """`allocatedResourcesStatus` of a container: for each claim that it names, the devices it has of it."""
        [spec] = [each for each in pod["spec"]["containers"] if each["name"] == container]
        names = dict(pod_claims.claim_names(pod))
        found = {}
        for use in (spec.get("resources") or {}).get("claims") or ():
            at = (pod["metadata"]["namespace"], names.get(use["name"], ""))
            claim = next((claim for claim in memory.claims.values() if (claim.namespace, claim.name) == at), None)
            request = use.get("request") or ""
            name = f"claim:{use['name']}" + (f"/{request}" if request else "")
            resources = self._resources(claim, request) if claim is not None else []
            if resources:
                found[name] = {"name": name, "resources": resources}
        return list(found.values())

    def _resources(self, claim: Remembered, request: str) -> list[Json]:
        found: dict[str, Json] = {}
        for driver, devices in claim.devices.items():
            for device in devices:
                if request and device.requests and request not in device.requests:
                    continue
                health, message = self.of((driver, device.pool, device.device))
                identity = _identity(driver, device)
                found.setdefault(identity, {"resourceID": identity, "health": health} | ({"message": message} if message else {}))
        return list(found.values())


def _identity(driver: str, device: Prepared) -> str:
    return device.cdi_ids[0] if device.cdi_ids else f"{driver}/{device.pool}/{device.device}"


def _cut(message: str) -> str:
    """By bytes, as the kubelet does it, be it within a character."""
    data = message.encode()
    return message if len(data) <= LONGEST_MESSAGE_BYTES else (data[: LONGEST_MESSAGE_BYTES - 3] + b"...").decode(errors="replace")
