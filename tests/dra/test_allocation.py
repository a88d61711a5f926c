"""From an allocation to grants: what is ours, under which names, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra import allocation
from dra.devices import Gpu, Kind, State
from dra.errors import ClaimRefused, HardwareFault, NotYet
from dra.kube.claims import ResourceClaim
from dra.names import Bdf, ClaimUid, PoolName
from dra.records import Grant
from tests.fakes.claim_server import claim

UID, POOL = ClaimUid("u"), PoolName("node1")
GPU = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56a0")
VF = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=Bdf("0000:18:00.0"), vf_index=1)


def decoded(document: dict[str, Any]) -> ResourceClaim:
    return msgspec.json.decode(msgspec.json.encode(document), type=ResourceClaim)


def grants(document: dict[str, Any], *known: Gpu) -> tuple[Grant, ...]:
    return allocation.grants(decoded(document), UID, POOL, {gpu.name: gpu for gpu in known})


def test_a_grant_names_request_device_and_cdi_device() -> None:
    (grant,) = grants(claim(UID, GPU.name), GPU)
    assert (grant.requests, grant.device, grant.bdf, grant.admin) == (("gpu",), GPU.name, GPU.bdf, False)
    assert grant.cdi_ids == (f"intel.com/gpu={UID}-{GPU.name}",)


def test_a_vf_remembers_its_pf() -> None:
    assert grants(claim(UID, VF.name), VF)[0].parent == "0000:18:00.0"


def test_one_device_for_two_requests_is_one_grant() -> None:
    document = claim(UID, GPU.name, GPU.name, adminAccess=True)
    assert [grant.requests for grant in grants(document, GPU)] == [("gpu", "gpu-1")]


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


def test_another_card_in_the_same_slot_is_not_the_one_granted() -> None:
    with pytest.raises(NotYet, match="not on this node"):
        fit(msgspec.structs.replace(GPU, device="0x56c0"))
    with pytest.raises(NotYet, match="unplugged"):
        fit(None, admin=True)
