"""Every checkpoint format that Intel's driver wrote is understood, and what is not is named and left alone."""

from __future__ import annotations

import json

import pytest

from dra import takeover
from dra.errors import StateCorrupt
from dra.names import BootId, ClaimUid, PoolName

UID = "0a1b2c3d-0000-0000-0000-000000000001"
DEVICE = "0000-03-00-0-0x56c0"


def read(document: object) -> takeover.Imported:
    return takeover.read(json.dumps(document).encode(), pool=PoolName("node1"), boot_id=BootId("b"))


VERSIONED = {
    "kind": "PreparedClaimsCheckpoint",
    "apiVersion": "checkpoint.gpu.intel.com/v1",
    "PreparedClaims": {
        UID: {
            "PreparedDevices": [
                {
                    "AdminAccess": False,
                    "KubeletpluginDevice": {
                        "Requests": ["gpu/large"],
                        "PoolName": "node1",
                        "DeviceName": DEVICE,
                        "CDIDeviceIDs": [f"intel.com/gpu={DEVICE}"],
                        "ShareID": None,
                        "Metadata": {"Attributes": {}, "NetworkData": None},
                    },
                }
            ]
        }
    },
}
UNVERSIONED = {
    UID: {
        "Devices": [{"requests": ["gpu"], "poolName": "node1", "deviceName": DEVICE, "cdiDeviceIDs": [f"intel.com/gpu={DEVICE}"]}],
        "Err": None,
    }
}
LISTS_0_6 = {UID: [{"request_names": ["gpu"], "pool_name": "node1", "device_name": DEVICE, "cdi_device_ids": [f"intel.com/gpu={DEVICE}"]}]}
LISTS_0_4 = {UID: [{"uid": "0000:03:00.0-0x56c0", "memory": 14248, "type": "gpu", "parentuid": "", "vfindex": 0, "profile": ""}]}


@pytest.mark.parametrize("document", [VERSIONED, UNVERSIONED, LISTS_0_6, LISTS_0_4], ids=["0.10.1+", "0.8-0.10.0", "0.6-0.7", "0.4-0.5"])
def test_every_format_gives_the_same_holding(document: object) -> None:
    imported = read(document)
    assert imported.refused == ()
    (record,) = imported.records
    (grant,) = record.grants
    assert (record.uid, grant.device, grant.bdf, grant.pool, grant.admin) == (UID, DEVICE, "0000:03:00.0", "node1", False)
    assert record.origin is not None and record.origin.startswith("intel:")


def test_names_that_running_pods_know_are_kept() -> None:
    assert read(VERSIONED).records[0].grants[0].cdi_ids == (f"intel.com/gpu={DEVICE}",)
    assert read(LISTS_0_4).records[0].grants[0].cdi_ids == ("intel.com/gpu=0000:03:00.0-0x56c0",)
    assert read(VERSIONED).records[0].grants[0].requests == ("gpu",)


def test_one_claim_that_is_not_understood_does_not_stop_the_others() -> None:
    imported = read(UNVERSIONED | {"bad": {"Devices": [{"deviceName": "gpu-7"}]}, "failed": {"Devices": [], "Err": "boom"}, "list": 7})
    assert [record.uid for record in imported.records] == [UID]
    assert len(imported.refused) == 3
    assert any("not a device name: 'gpu-7'" in sentence for sentence in imported.refused)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\x00" * 20])
def test_a_file_that_is_no_checkpoint_is_left_alone(data: bytes) -> None:
    with pytest.raises(StateCorrupt, match="left as it is"):
        takeover.read(data, pool=PoolName("n"), boot_id=BootId("b"))


def test_an_empty_file_holds_no_claims() -> None:
    assert takeover.read(b"", pool=PoolName("n"), boot_id=BootId("b")).records == ()


def test_cut_and_flipped_at_every_byte_it_never_crashes() -> None:
    data = json.dumps(VERSIONED).encode()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        for damaged in (data[:position], bytes(flipped)):
            try:
                takeover.read(damaged, pool=PoolName("n"), boot_id=BootId("b"))
            except StateCorrupt:
                continue


def test_claims_of_the_classic_releases_hold_what_they_held() -> None:
    gpu = {"uid": "0000:03:00.0-0x56c0", "type": "gpu", "memory": 16000, "millicores": 1000, "parentuid": "", "vfindex": 0}
    claims = {
        "whole": [gpu],
        "shared": [gpu | {"millicores": 300}],
        "vf": [gpu | {"uid": "0000:03:00.1-0x56c0", "type": "vf", "millicores": 250, "parentuid": gpu["uid"]}],
        "unmade": [gpu | {"uid": "", "type": "vf"}],
    }
    found = takeover.imported(claims, takeover.STATE, pool=PoolName("n"), boot_id=BootId("b"), driver="gpu.resource.intel.com")
    grants = {record.uid: record.grants[0] for record in found.records}
    assert (grants[ClaimUid("whole")].exclusive, grants[ClaimUid("shared")].share_id) == (True, "shared")
    assert (grants[ClaimUid("vf")].parent, grants[ClaimUid("vf")].share_id) == ("0000:03:00.0", None)
    assert {record.driver for record in found.records} == {"gpu.resource.intel.com"}
    assert len(found.refused) == 1 and found.refused[0].startswith("GpuAllocationState: claim 'unmade'")
