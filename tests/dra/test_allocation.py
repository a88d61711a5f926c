"""From an allocation to grants: what is ours, under which names, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra import allocation
from dra.devices import DeviceNode, Gpu, Kind, State
from dra.errors import ClaimRefused, HardwareFault, NotYet
from dra.kube.claims import ResourceClaim
from dra.names import Bdf, ClaimUid, DeviceName, PoolName
from dra.records import Grant
from tests.fakes.claim_server import claim

UID, POOL = ClaimUid("u"), PoolName("node1")
GPU = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56a0")
VF = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=Bdf("0000:18:00.0"), vf_index=1)


def decoded(document: dict[str, Any]) -> ResourceClaim:
    return msgspec.json.decode(msgspec.json.encode(document), type=ResourceClaim)


def grants(document: dict[str, Any], *known: Gpu, profiles: dict[DeviceName, str] | None = None) -> tuple[Grant, ...]:
    return allocation.grants(decoded(document), UID, POOL, {gpu.name: gpu for gpu in known}, profiles=profiles or {})


def wish(*requests: str, **fields: str) -> dict[str, Any]:
    parameters = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", **fields}
    return {"source": "FromClaim", "requests": list(requests), "opaque": {"driver": "gpu.intel.com", "parameters": parameters}}


def test_a_grant_names_request_device_and_cdi_device() -> None:
    (grant,) = grants(claim(UID, GPU.name), GPU)
    assert (grant.requests, grant.device, grant.bdf, grant.admin) == (("gpu",), GPU.name, GPU.bdf, False)
    assert grant.cdi_ids == (f"intel.com/gpu={UID}-{GPU.name}",)


def test_a_vf_remembers_its_pf() -> None:
    assert grants(claim(UID, VF.name), VF)[0].parent == "0000:18:00.0"


def test_one_device_for_two_requests_is_one_grant() -> None:
    document = claim(UID, GPU.name, GPU.name, adminAccess=True)
    assert [grant.requests for grant in grants(document, GPU)] == [("gpu", "gpu-1")]


def test_a_wish_for_a_driver_is_of_the_requests_it_names_and_has_a_cdi_device_of_its_own() -> None:
    document = claim(UID, GPU.name, VF.name, config=[wish("gpu-1", driver="vfio-pci")])
    plain, to_vm = grants(document, GPU, VF)
    assert (plain.driver, to_vm.driver, to_vm.parent) == ("", "vfio-pci", "0000:18:00.0")
    assert to_vm.cdi_ids == (f"intel.com/gpu={UID}-{VF.name}-vfio-pci",)


def test_the_profile_a_claim_relies_on_is_made_sure_of() -> None:
    document = claim(UID, VF.name, config=[wish(profile="b60_m1")])
    assert len(grants(document, VF, profiles={VF.name: "b60_m1"})) == 1
    with pytest.raises(ClaimRefused, match=f"'gpu' relies on profile b60_m1: {VF.name} has b60_m2"):
        grants(document, VF, profiles={VF.name: "b60_m2"})
    with pytest.raises(ClaimRefused, match="is no VF of a known profile"):
        grants(document, VF)


def test_sharing_and_drivers_are_held_against_what_was_allocated() -> None:
    shared = claim(UID, GPU.name, shareID="s1", config=[wish(sharing="shared")])
    assert grants(shared, GPU)[0].share_id == "s1"
    with pytest.raises(ClaimRefused, match="relies on exclusive"):
        grants(claim(UID, GPU.name, shareID="s1", config=[wish(sharing="exclusive")]), GPU)
    with pytest.raises(ClaimRefused, match="was allocated a share"):
        grants(claim(UID, GPU.name, shareID="s1", config=[wish(driver="vfio-pci")]), GPU)
    with pytest.raises(ClaimRefused, match="has adminAccess"):
        grants(claim(UID, GPU.name, adminAccess=True, config=[wish(driver="vfio-pci")]), GPU)


def test_null_lists_of_a_go_server_are_empty_ones() -> None:
    document = claim(UID, GPU.name)
    document["status"]["allocation"]["devices"]["config"] = None
    document["spec"]["devices"]["requests"] = None
    assert len(grants(document, GPU)) == 1


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda d: d["metadata"].update(uid="other"), "ClaimReplaced", "was replaced: asked for UID u, the API server has other"),
        (lambda d: d.update(status=None), "ClaimNotAllocated", "claim default/u is not allocated"),
        (lambda d: d["status"]["allocation"]["devices"]["results"][0].update(driver="x"), "NoDevices", "holds no device of gpu.intel.com"),
        (
            lambda d: d["status"]["allocation"]["devices"]["results"][0].update(pool="node2"),
            "WrongPool",
            "is of pool node2, this node's is node1",
        ),
        (
            lambda d: d["status"]["allocation"]["devices"]["results"][0].update(device="gpu-0"),
            "UnknownDevice",
            "'gpu-0' was never published",
        ),
    ],
)
def test_refusals(change: Any, reason: str, words: str) -> None:
    document = claim(UID, GPU.name)
    change(document)
    with pytest.raises(ClaimRefused) as refused:
        grants(document, GPU)
    assert refused.value.reason == reason
    assert words in str(refused.value)


def fit(gpu: Gpu | None, *, admin: bool = False) -> Gpu:
    grant = Grant(requests=("gpu",), pool=POOL, device=GPU.name, bdf=GPU.bdf, admin=admin)
    return allocation.require(grant, gpu)


def test_a_sound_gpu_is_fit_and_so_is_one_with_leftover_quotas() -> None:
    assert fit(GPU) == GPU
    assert fit(msgspec.structs.replace(GPU, state=State.DIRTY)).state is State.DIRTY


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"state": State.NO_NODES}, NotYet),
        ({"state": State.NO_DRIVER}, NotYet),
        ({"state": State.PASSTHROUGH}, ClaimRefused),
        ({"state": State.WEDGED}, HardwareFault),
        ({"state": State.SURVIVABILITY}, HardwareFault),
        ({"vfs_now": 2}, ClaimRefused),
    ],
)
def test_what_is_unfit_is_refused_by_whose_move_it_is_but_shown_to_admins(changes: dict[str, Any], kind: type[Exception]) -> None:
    gpu = msgspec.structs.replace(GPU, **changes)
    with pytest.raises(kind):
        fit(gpu)
    assert fit(gpu, admin=True) == gpu


NODES = (DeviceNode("/dev/vfio/7", 510, 0, 0o600, 0),)
IN_VFIO = msgspec.structs.replace(GPU, driver="vfio-pci", state=State.PASSTHROUGH, iommu_group="7", vfio_nodes=NODES)


def fit_for_vm(gpu: Gpu, driver: str = "vfio-pci") -> Gpu:
    return allocation.require(Grant(requests=("gpu",), pool=POOL, device=GPU.name, bdf=GPU.bdf, driver=driver), gpu)


def test_a_gpu_is_fit_for_a_virtual_machine_once_it_is_bound_as_asked_and_has_its_nodes() -> None:
    assert fit_for_vm(IN_VFIO) == IN_VFIO
    with pytest.raises(ClaimRefused, match="belongs to a virtual machine"):
        fit(IN_VFIO)


@pytest.mark.parametrize(
    ("driver", "changes", "kind", "reason"),
    [
        ("vfio-pci", {"driver": "xe", "state": State.HEALTHY}, NotYet, "DeviceNotReady"),
        ("vfio-pci", {"driver": None, "state": State.NO_DRIVER}, NotYet, "DeviceNotReady"),
        ("vfio-pci", {"driver": "xe-vfio-pci"}, NotYet, "DeviceNotReady"),
        ("vfio-pci", {"vfio_nodes": ()}, NotYet, "DeviceNotReady"),
        ("vfio-pci", {"vfs_now": 2}, ClaimRefused, "DeviceCarved"),
        ("vfio-pci", {"driver": "xe", "state": State.HEALTHY, "boot_vga": True}, ClaimRefused, "ConsoleGpu"),
        ("vfio-pci", {"iommu_group": None}, ClaimRefused, "NoIommu"),
        ("xe-vfio-pci", {}, ClaimRefused, "DriverUnfit"),
    ],
)
def test_what_is_unfit_for_a_virtual_machine(driver: str, changes: dict[str, Any], kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind) as refused:
        fit_for_vm(msgspec.structs.replace(IN_VFIO, **changes), driver)
    assert getattr(refused.value, "reason", None) == reason


def test_another_card_in_the_same_slot_is_not_the_one_granted() -> None:
    with pytest.raises(NotYet, match="not on this node"):
        fit(msgspec.structs.replace(GPU, device="0x56c0"))
    with pytest.raises(NotYet, match="unplugged"):
        fit(None, admin=True)
