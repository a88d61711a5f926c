"""Every machine of tools/machines is read as it is; garbage makes fields unknown and hides nothing."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import discovery
from dra.devices import Gpu, Kind, State
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

FIELDS = (
    "bdf", "device", "driver", "model", "family", "kind", "memory_bytes", "tiles", "card", "render", "numa", "pcie_root",
    "max_vfs_usable", "vfs_now", "state", "publishable", "parent", "vf_index",
)  # fmt: skip


def found(name: str) -> list[Gpu]:
    return list(discovery.scan(machines.kernel(name)).gpus)


@pytest.mark.parametrize("name", machines.NAMES)
def test_every_gpu_of_the_machine_is_found_as_it_is(name: str) -> None:
    want = sorted(machines.expected(name), key=lambda gpu: gpu["bdf"])
    assert [{field: getattr(gpu, field) for field in FIELDS} for gpu in found(name)] == [
        {field: gpu.get(field) for field in FIELDS} for gpu in want
    ]


@pytest.mark.parametrize("name", machines.NAMES)
def test_what_needs_explaining_is_explained(name: str) -> None:
    by_bdf = {gpu.bdf: gpu for gpu in found(name)}
    for gpu in machines.expected(name):
        if gpu.get("why"):
            assert by_bdf[gpu["bdf"]].why, gpu["bdf"]


@pytest.mark.parametrize("name", machines.NAMES)
def test_what_could_be_mistaken_for_a_gpu_is_ignored_with_a_reason(name: str) -> None:
    document = machines.document(name)["machine"][name]
    ignored = discovery.scan(machines.kernel(name)).ignored
    assert {entry.bdf or entry.path for entry in ignored} == {entry["bdf"] or entry["path"] for entry in document["expected"]["ignored"]}
    assert all(entry.why for entry in ignored)


def test_the_real_link_is_read_at_the_cards_upstream_port() -> None:
    a770 = next(gpu for gpu in found("desktop-a770") if gpu.device == "0x56a0")
    assert (a770.link_speed, a770.link_width) == ("16.0 GT/s", 16)
    integrated = next(gpu for gpu in found("desktop-a770") if gpu.integrated)
    assert (integrated.link_speed, integrated.link_width) == (None, None)


def test_nodes_carry_what_a_container_needs() -> None:
    gpu = found("server-4x-b60")[0]
    assert gpu.card_node is not None and gpu.render_node is not None
    assert (gpu.card_node.path, gpu.card_node.major, gpu.card_node.minor, gpu.card_node.mode) == ("/dev/dri/card1", 226, 1, 0o660)
    assert gpu.render_node.gid != gpu.card_node.gid
    assert gpu.by_path == (
        ("/dev/dri/by-path/pci-0000:18:00.0-card", "/dev/dri/card1"),
        ("/dev/dri/by-path/pci-0000:18:00.0-render", "/dev/dri/renderD128"),
    )


def test_management_engines_serials_and_driver_versions() -> None:
    gpu = found("server-8x-max1550")[0]
    assert [node.path for node in gpu.mei_nodes] == ["/dev/mei0"]
    assert gpu.serial is not None and gpu.serial.startswith("0x")
    assert gpu.driver_version == "23.6.42"
    assert found("workstation-2xb580")[0].driver_version == "6.17.8-amd64"


def test_a_function_on_vfio_has_the_nodes_that_are_there() -> None:
    kernel, bdf = machines.kernel("server-4x-b60"), Bdf("0000:18:00.0")
    assert all(gpu.vfio_nodes == () for gpu in discovery.scan(kernel).gpus)
    kernel.modprobe("vfio-pci")
    kernel.write(f"sys/bus/pci/devices/{bdf}/driver_override", "vfio-pci")
    kernel.unbind(bdf)
    kernel.write("sys/bus/pci/drivers_probe", bdf)
    container, group, device = discovery.scan(kernel).by_bdf()[bdf].vfio_nodes
    assert [node.path for node in (container, group, device)] == ["/dev/vfio/vfio", "/dev/vfio/6", "/dev/vfio/devices/vfio0"]
    assert (container.major, container.minor, container.mode) == (10, 196, 0o666)
    without_group = _Broken(kernel, lambda path: path in ("dev/vfio/vfio", "dev/vfio/6"))
    assert discovery.scan(without_group).by_bdf()[bdf].vfio_nodes == (device,)
    not_made_yet = _Broken(kernel, lambda path: path in ("dev/vfio/6", "dev/vfio/devices/vfio0"))
    assert discovery.scan(not_made_yet).by_bdf()[bdf].vfio_nodes == ()


def test_a_uevent_that_said_wedged_counts_although_sysfs_shows_nothing() -> None:
    bdf = Bdf("0000:18:00.0")
    gpu = discovery.scan(machines.kernel("server-4x-b60"), wedged={bdf: "rebind"}).by_bdf()[bdf]
    assert (gpu.state, gpu.publishable) == (State.WEDGED, False)
    assert gpu.why is not None and "rebind" in gpu.why


def test_a_vf_whose_pf_cannot_be_read_is_never_a_whole_gpu() -> None:
    kernel = machines.kernel("server-4x-b60-4vf")
    broken = _Broken(kernel, lambda path: "0000:18:00.0" in path)
    vfs = [gpu for gpu in discovery.scan(broken).gpus if gpu.bdf.startswith("0000:18:00.") and gpu.bdf != "0000:18:00.0"]
    assert len(vfs) == 4
    assert all(gpu.kind is Kind.VF for gpu in vfs)


def test_in_a_virtual_machine_a_vf_is_told_by_what_its_driver_leaves_out() -> None:
    kernel = machines.kernel("server-4x-b60-4vf")
    guest = _Broken(kernel, lambda path: path.endswith("physfn") or "/0000:18:00.0/" in path + "/")
    vf = discovery.scan(guest).by_bdf()[Bdf("0000:18:00.1")]
    assert (vf.kind, vf.parent, vf.vf_index, vf.publishable) == (Kind.VF, None, None, True)


def test_one_card_that_does_not_answer_leaves_the_others_their_memory() -> None:
    kernel = machines.kernel("server-4x-b60")
    silent = _Broken(kernel, lambda path: path == "dev/dri/renderD128", error=errno.ENODEV)
    sizes = [gpu.memory_bytes for gpu in discovery.scan(silent).gpus]
    assert sizes[1:] == [25669140480] * 3


class _Broken:
    """A machine some of whose paths fail."""

    def __init__(self, kernel: SimKernel, fails: Any, error: int = errno.EIO) -> None:
        self._kernel, self._fails, self._error = kernel, fails, error

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kernel, name)

        def call(path: str, *args: Any) -> Any:
            if self._fails(path):
                if name == "exists":
                    return False
                raise OSError(self._error, "broken", path)
            return method(path, *args)

        return call


class _Garbage(_Broken):
    """A machine whose files hold what they should not: every n-th read or listing is nonsense or an error."""

    def __init__(self, kernel: SimKernel, choices: list[int]) -> None:
        super().__init__(kernel, lambda path: False)
        self._choices, self._at = choices, 0

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)

        def call(path: str, *args: Any) -> Any:
            self._at += 1
            choice = self._choices[self._at % len(self._choices)]
            if choice == 1 and name != "exists":
                raise OSError(errno.EIO, "garbage", path)
            if choice == 2 and name == "read":
                return "\x00\ufffd-1 0x\n\n"
            if choice == 3 and name == "list":
                return []
            if choice == 4 and name in ("link", "resolve"):
                return "../../nowhere"
            return method(path, *args)

        return call


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*machines.NAMES[:3], "server-4x-b60-4vf", "server-8x-flex170"]), st.lists(st.integers(0, 12), min_size=1, max_size=40)
)
def test_garbage_never_stops_a_scan(name: str, choices: list[int]) -> None:
    for gpu in discovery.scan(_Garbage(machines.kernel(name), choices)).gpus:  # type: ignore[arg-type]
        assert gpu.bdf in {entry["bdf"] for entry in machines.expected(name)}
