"""A claim's files follow its record: what containers mount is there before the CDI file says so, and goes after it."""

from __future__ import annotations

import errno
import json
from typing import Any

import msgspec
import pytest

from dra import cdi, preparation
from dra.claims import Stage
from dra.devices import DeviceNode
from dra.errors import HardwareFault
from dra.names import ClaimUid
from dra.records import Record
from nursery_apps.node.claim_files import ClaimFiles
from tests.fakes.lent_gpu import LENT, UID, grant, record
from tests.fakes.state_dir import MemoryStateDir, Power, PowerCut

OTHER = ClaimUid("0a1b2c3d-0000-0000-0000-000000000002")
GPUS = {LENT.name: LENT}
CDI = cdi.file_name(UID)
METADATA = f"{UID}_gpu.json"


class Disk:
    def __init__(self, *, power: Power | None = None) -> None:
        self.cdi, self.metadata = MemoryStateDir(power=power), MemoryStateDir(power=power)
        self.files = ClaimFiles(self.cdi, self.metadata, "/plugin/metadata")

    def settle(self, record: Record | None, uid: ClaimUid = UID) -> preparation.Step | None:
        return self.files.settle(uid, record, GPUS, {})[1]

    def mounted(self) -> list[Any]:
        edits = json.loads(self.cdi.files[CDI])["devices"][0]["containerEdits"]
        return [mount["hostPath"] for mount in edits.get("mounts", ())]


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_a_virtual_machines_claim_has_a_file_that_its_cdi_file_mounts(disk: Disk) -> None:
    assert not disk.files.has_cdi(UID)
    assert disk.settle(record()) is None
    assert disk.mounted() == [f"/plugin/metadata/{METADATA}"]
    assert list(disk.metadata.files) == [METADATA]
    assert disk.files.has_cdi(UID)


def test_a_containers_claim_has_no_metadata(disk: Disk) -> None:
    drawing = msgspec.structs.replace(LENT, driver="xe", render_node=DeviceNode("/dev/dri/renderD129", 226, 129, 0o660, 105))
    assert disk.files.settle(UID, record(grant(LENT, "gpu")), {LENT.name: drawing}, {})[1] is None
    assert disk.mounted() == [] and not disk.metadata.files


def test_what_is_settled_is_not_written_again(disk: Disk) -> None:
    disk.settle(record())
    before = disk.cdi.stamp(CDI), disk.metadata.stamp(METADATA)
    assert disk.settle(record()) is None
    assert (disk.cdi.stamp(CDI), disk.metadata.stamp(METADATA)) == before


def test_what_the_disk_garbled_is_written_again(disk: Disk) -> None:
    disk.settle(record())
    good = dict(disk.cdi.files), dict(disk.metadata.files)
    disk.cdi.files[CDI], disk.metadata.files[METADATA] = b"{", b""
    disk.settle(record())
    assert (disk.cdi.files, disk.metadata.files) == good


def test_all_of_a_claim_goes_and_nothing_of_another(disk: Disk) -> None:
    for uid in (UID, OTHER):
        disk.settle(record(uid=uid), uid)
    assert disk.settle(record(stage=Stage.RELEASING)) == preparation.ForgetClaim()
    assert list(disk.cdi.files) == [cdi.file_name(OTHER)] and list(disk.metadata.files) == [f"{OTHER}_gpu.json"]


def test_files_without_a_record_go(disk: Disk) -> None:
    disk.settle(record())
    assert disk.settle(None) is None
    assert not disk.cdi.files and not disk.metadata.files


@pytest.mark.parametrize("stage", [Stage.GRANTED, Stage.RELEASING])
def test_whenever_the_power_goes_no_cdi_file_mounts_what_is_not_there(stage: Stage) -> None:
    for cut_at in range(20):
        power = Power()
        disk = Disk(power=power)
        if stage is Stage.RELEASING:
            disk.settle(record())
        power.points, power.cut_at = 0, cut_at
        try:
            disk.settle(record(stage=stage))
        except PowerCut:
            if CDI in disk.cdi.files:
                assert METADATA in disk.metadata.files
        else:
            assert cut_at > 4, "two files, each with a point before, within and after"
            return
    pytest.fail("it never got to the end")


@pytest.mark.parametrize(("directory", "name"), [("cdi", CDI), ("metadata", METADATA)])
def test_a_full_disk_is_said_with_the_file_and_what_to_do(disk: Disk, directory: str, name: str) -> None:
    getattr(disk, directory).fail = lambda operation, _: errno.ENOSPC if operation == "replace" else None
    with pytest.raises(HardwareFault, match=rf"{name}: ENOSPC; free space"):
        disk.settle(record())
