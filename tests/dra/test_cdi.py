"""CDI files hold exactly the granted GPU's nodes, in the form every runtime since CDI 0.5 takes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import cdi
from dra.devices import DeviceNode, Gpu
from dra.names import Bdf, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Record

UID = ClaimUid("0a1b2c3d-0000-0000-0000-000000000001")


def node(path: str, major: int, minor: int) -> DeviceNode:
    return DeviceNode(path, major, minor, 0o660, 44)


GPU = Gpu(
    bdf=Bdf("0000:03:00.0"),
    device="0x56a0",
    driver="i915",
    card_node=node("/dev/dri/card1", 226, 1),
    render_node=node("/dev/dri/renderD129", 226, 129),
    by_path=(
        ("/dev/dri/by-path/pci-0000:03:00.0-card", "/dev/dri/card1"),
        ("/dev/dri/by-path/pci-0000:03:00.0-render", "/dev/dri/renderD129"),
    ),
    mei_nodes=(node("/dev/mei1", 511, 1),),
)


def record(gpu: Gpu = GPU, *, monitor: bool = False, origin: str | None = None, cdi_id: str | None = None) -> Record:
    name = cdi_id or cdi.qualified(cdi.device_of(UID, gpu.name, monitor=monitor))
    grant = Grant(requests=("gpu",), pool=PoolName("n"), device=gpu.name, bdf=gpu.bdf, admin=monitor, monitor=monitor, cdi_ids=(name,))
    return Record(uid=UID, namespace="default", name="c", grants=(grant,), origin=origin)


def rendered(*args: object, **kwargs: object) -> dict[str, object]:
    data = cdi.render(record(*args, **kwargs), {GPU.name: GPU})  # type: ignore[arg-type]
    assert data is not None
    document: dict[str, object] = json.loads(data)
    return document


def test_the_whole_file() -> None:
    def entry(path: str, minor: int, **more: str) -> dict[str, object]:
        return {"path": path, "type": "c", "major": 226, "minor": minor, "fileMode": 0o660, "permissions": "rw", "gid": 44, **more}

    assert rendered() == {
        "cdiVersion": "0.5.0",
        "kind": "intel.com/gpu",
        "devices": [
            {
                "name": f"{UID}-0000-03-00-0-0x56a0",
                "containerEdits": {
                    "deviceNodes": [
                        entry("/dev/dri/card1", 1),
                        entry("/dev/dri/renderD129", 129),
                        entry("/dev/dri/by-path/pci-0000:03:00.0-card", 1, hostPath="/dev/dri/card1"),
                        entry("/dev/dri/by-path/pci-0000:03:00.0-render", 129, hostPath="/dev/dri/renderD129"),
                    ]
                },
            }
        ],
        "containerEdits": {"env": [f"INTEL_GPU_DRA_CLAIM={UID}"]},
    }


def test_management_engine_nodes_only_where_asked() -> None:
    assert "mei" not in json.dumps(rendered())
    assert "/dev/mei1" in json.dumps(rendered(monitor=True))


def test_a_function_for_a_virtual_machine_shows_its_vfio_nodes_and_nothing_else() -> None:
    names = ("/dev/vfio/vfio", "/dev/vfio/7", "/dev/vfio/devices/vfio0")
    bound = msgspec.structs.replace(GPU, driver="vfio-pci", vfio_nodes=tuple(node(name, 510, at) for at, name in enumerate(names)))
    name = cdi.qualified(cdi.device_of(UID, GPU.name, driver="vfio-pci"))
    grant = msgspec.structs.replace(record().grants[0], driver="vfio-pci", cdi_ids=(name,))
    document = json.loads(cdi.render(msgspec.structs.replace(record(), grants=(grant,)), {GPU.name: bound}) or b"")
    [device] = document["devices"]
    assert [each["path"] for each in device["containerEdits"]["deviceNodes"]] == list(names)
    assert (device["name"], cdi.ids(grant, bound)) == (f"{UID}-{GPU.name}-vfio-pci", (name,))
    for other in (GPU, msgspec.structs.replace(bound, driver="xe-vfio-pci"), msgspec.structs.replace(bound, vfio_nodes=())):
        assert cdi.ids(grant, other) == (), "it is not, or not yet, what the claim asked for"


def test_a_mount_is_shown_to_those_who_have_its_request() -> None:
    mounts = {"gpu": cdi.Mount("/host/a", "/a"), "other": cdi.Mount("/host/b", "/b")}
    [device] = json.loads(cdi.render(record(), {GPU.name: GPU}, mounts=mounts) or b"")["devices"]
    assert device["containerEdits"]["mounts"] == [{"hostPath": "/host/a", "containerPath": "/a", "options": ["ro", "bind"]}]


def test_a_gpu_without_nodes_is_left_out_and_a_file_without_devices_is_not_written() -> None:
    bare = Gpu(bdf=GPU.bdf, device=GPU.device, driver="vfio-pci")
    assert cdi.render(record(), {GPU.name: bare}) is None
    assert cdi.render(record(), {}) is None
    assert cdi.ids(record().grants[0], bare) == ()
    assert cdi.ids(record().grants[0], GPU) == record().grants[0].cdi_ids


def test_claims_of_another_driver_live_in_a_file_of_their_own_under_their_old_names() -> None:
    old = record(origin="intel:unversioned", cdi_id="intel.com/gpu=0000-03-00-0-0x56a0")
    assert cdi.render(old, {GPU.name: GPU}) is None
    document = json.loads(cdi.render_taken_over([old, old], {GPU.name: GPU}) or b"")
    assert [device["name"] for device in document["devices"]] == ["0000-03-00-0-0x56a0"]


def test_rendering_is_deterministic_so_an_untouched_file_is_never_rewritten() -> None:
    assert cdi.render(record(), {GPU.name: GPU}) == cdi.render(record(), {GPU.name: GPU})


def test_file_names_are_found_again_and_foreign_ones_are_not() -> None:
    assert cdi.uid_of_file(cdi.file_name(UID)) == UID
    for name in ("intel.com-gpu.yaml", "nvidia.com-gpu_x.json", cdi.TAKEN_OVER_FILE, "intel.com-gpu_.json", "intel.com-gpu_a b.json"):
        assert cdi.uid_of_file(name) is None


@pytest.mark.parametrize(("monitor", "driver"), [(False, ""), (True, ""), (False, "xe-vfio-pci")])
@given(uid=st.uuids())
def test_device_names_follow_the_cdi_grammar(uid: object, monitor: bool, driver: str) -> None:
    name = cdi.device_of(ClaimUid(str(uid)), DeviceName("0000-03-00-0-0x56a0"), monitor=monitor, driver=driver)
    assert name[0].isalnum() and name[-1].isalnum()
    assert all(c.isalnum() or c in "_-.:" for c in name)
