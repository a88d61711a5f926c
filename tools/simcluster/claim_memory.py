"""What the kubelet remembers of claims: in a file across its restarts, except whether they are prepared, which it never knows after one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

Uid = str


class Prepared(msgspec.Struct):
    """A device as the driver answered; without the share ID the kubelet does not know whose share it is, and asks no further."""

    pool: str
    device: str
    requests: list[str]
    cdi_ids: list[str]
    share: str = ""


class Handle(msgspec.Struct):
    """What a controller wrote for a driver into an allocation, up to 1.30."""

    driver: str
    """Empty: that of the claim's status."""
    data: str


class Remembered(msgspec.Struct):
    """One claim on this node."""

    uid: Uid
    namespace: str
    name: str
    drivers: list[str]
    pods: list[Uid]
    """Those that use it here."""
    devices: dict[str, list[Prepared]] = {}
    """By driver."""
    handles: list[Handle] = []
    """Up to 1.30, as they were when the claim was first seen."""


class ClaimMemory:
    """`<root>/dra_manager_state` and what is in memory only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.claims: dict[Uid, Remembered] = {}
        self.prepared: set[Uid] = set()
        self.leaving: set[Uid] = set()
        """Being unprepared; lost with a restart."""
        if os.path.exists(path):
            self.claims = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Remembered])

    def save(self) -> None:
        Path(f"{self._path}.tmp").write_bytes(msgspec.json.encode(self.claims))
        os.replace(f"{self._path}.tmp", self._path)

    def of_pod(self, pod: Uid) -> list[Remembered]:
        return [claim for claim in self.claims.values() if pod in claim.pods]

    def store_devices(self, claim: Remembered, driver: str, devices: list[Prepared], *, appends: bool) -> None:
        """1.31 to 1.36 append what a repeated prepare answers, the others replace."""
        if appends:
            claim.devices[driver] = claim.devices.get(driver, []) + devices
        else:
            claim.devices[driver] = devices
