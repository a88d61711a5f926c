"""A machine that is recorded and loaded again is to the driver the machine that it was; and no garbage and no secret gets in its way."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import binding, card_facts, discovery, recording
from dra.devices import Gpu, Inventory, Kind
from dra.health import readings
from dra.kernel_tree import KernelTree
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges.kernel_tree import RealKernelTree
from tests.fakes import machines
from tests.fakes.materialise import can_make_nodes, materialise


def again(tree: KernelTree) -> SimKernel:
    """Recorded, written out and loaded."""
    return SimKernel.load(json.loads(json.dumps(recording.record(tree).document)))


def without_serials(inventory: Inventory) -> Inventory:
    return msgspec.structs.replace(inventory, gpus=tuple(msgspec.structs.replace(gpu, serial=None) for gpu in inventory.gpus))


def looks(tree: KernelTree, gpus: tuple[Gpu, ...]) -> dict[str, Any]:
    """What the driver finds of each GPU before it acts: for cutting cards, for switching drivers, for health. `config`, which tells whether
    it is on the bus, is not recorded: every simulated function has one of its own."""
    return {
        gpu.bdf: (
            card_facts.read(tree, gpu, with_quotas=True) if gpu.kind is Kind.PF else None,
            binding.facts(tree, gpu.bdf),
            msgspec.structs.replace(readings.read(tree, gpu, 0.0), off_bus=None),
        )
        for gpu in gpus
    }


@pytest.mark.parametrize("name", machines.NAMES)
def test_every_machine_is_the_same_when_it_was_recorded(name: str) -> None:
    kernel = machines.kernel(name)
    before = discovery.scan(kernel)
    made = recording.record(kernel).document
    copied = SimKernel.load(json.loads(json.dumps(made)))
    after = discovery.scan(copied)
    assert without_serials(after) == without_serials(before)
    assert len({gpu.serial for gpu in after.gpus}) == len({gpu.serial for gpu in before.gpus})
    assert looks(copied, before.gpus) == looks(kernel, before.gpus)
    one, other = (document["machine"]["recorded"] for document in (made, recording.record(copied).document))
    assert (one["tree"], one["ioctl"]) == (other["tree"], other["ioctl"])


@pytest.mark.parametrize("name", ["server-4x-b60", "server-8x-flex170", "server-2x-b60-debugfs"])
def test_a_recorded_card_is_cut_as_the_card_itself(name: str) -> None:
    first, second = machines.kernel(name), again(machines.kernel(name))
    pf = next(gpu for gpu in discovery.scan(first).gpus if gpu.max_vfs_usable and not gpu.vfs_now)
    found = []
    for kernel in (first, second):
        kernel.write(f"sys/bus/pci/devices/{pf.bdf}/sriov_numvfs", "2")
        found.append(without_serials(discovery.scan(kernel)))
    assert found[0] == found[1] and found[0].by_bdf()[pf.bdf].vfs_now == 2


@pytest.mark.parametrize("name", ["server-4x-b60-4vf", "desktop-a770", "mixed-nvidia-amd"])
def test_real_files_are_recorded_as_what_they_are(name: str, tmp_path: Path) -> None:
    nodes = can_make_nodes(tmp_path)
    materialise(machines.document(name), tmp_path, make_nodes=nodes)
    real = RealKernelTree(*(str(tmp_path / root) for root in ("sys", "dev", "proc")))
    copied = again(real)
    before, after = discovery.scan(real), discovery.scan(copied)
    # Nobody answers the memory query behind these files.
    assert without_serials(after) == without_serials(before)
    assert looks(copied, before.gpus) == looks(real, before.gpus)


def test_a_wedged_card_stays_wedged() -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.wedge("0000:18:00.0")
    assert discovery.scan(again(kernel)).by_bdf()["0000:18:00.0"].state == "wedged"  # type: ignore[index]


def test_serial_numbers_uuids_and_addresses_are_blanked_and_named() -> None:
    document = json.loads(json.dumps(machines.document("server-8x-flex170")))
    text = json.dumps(document)
    serials = {gpu.serial for gpu in discovery.scan(machines.kernel("server-8x-flex170")).gpus if gpu.serial}
    assert serials
    tree = document["machine"]["server-8x-flex170"]["tree"]
    tree["proc"]["cmdline"] = "root=UUID=6f1e4d6e-0a8a-4d0b-9d0e-2b1c6f6f0a11 ip=10.0.0.7::secret-host intel_iommu=on i915.max_vfs=31\n"
    device = tree["sys"]["devices"]["pci0000:4a"]
    while "vendor" not in device:
        device = next(below for name, below in device.items() if isinstance(below, dict) and name.startswith("0000:"))
    device["label"] = "aa:bb:cc:dd:ee:ff 6f1e4d6e-0a8a-4d0b-9d0e-2b1c6f6f0a11\n"
    kernel = SimKernel.load(document)
    kernel.reboot("12345678-0000-4000-8000-000000000009")
    made = recording.record(kernel)
    said = json.dumps(made.document)
    for secret in (*serials, "6f1e4d6e", "secret-host", "10.0.0.7", "aa:bb:cc", "12345678-0000", "server-8x-flex170"):
        assert secret in text + json.dumps(document) + kernel.boot_id
        assert secret not in said, secret
    assert "intel_iommu=on i915.max_vfs=31" in said
    assert any(path.endswith("/label") for path in made.blanked)
    assert any(path.endswith("/prelim_csc_unique_id") for path in made.blanked)


def test_what_cannot_be_read_is_named_and_stays_unreadable() -> None:
    kernel = machines.kernel("server-4x-b60")
    device = discovery.scan(kernel).gpus[0]
    kernel.fail(f"*/{device.bdf}/numa_node", "read", errno.EIO, None)
    made = recording.record(kernel)
    assert any("numa_node: EIO" in text for text in made.unread)
    copied = SimKernel.load(made.document)
    assert discovery.scan(copied).by_bdf()[device.bdf].numa == -1
    with pytest.raises(PermissionError):
        copied.read(f"sys/bus/pci/devices/{device.bdf}/numa_node")


def test_a_file_that_is_too_large_is_named_and_left_out(tmp_path: Path) -> None:
    materialise(machines.document("desktop-a770"), tmp_path, make_nodes=False)
    real = RealKernelTree(*(str(tmp_path / root) for root in ("sys", "dev", "proc")))
    device = discovery.scan(real).gpus[0].bdf
    (tmp_path / real.resolve(f"sys/bus/pci/devices/{device}") / "huge").write_bytes(b"\xff\0" * 40_000)
    made = recording.record(real)
    assert any(text.endswith("/huge: EFBIG") for text in made.unread)
    assert len(json.dumps(made.document)) < 500_000


class ReadOnly:
    """Every call goes through but writes; what was read is remembered."""

    def __init__(self, tree: KernelTree) -> None:
        self._tree = tree
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        assert name != "write"
        return getattr(self._tree, name)

    def read(self, path: str) -> str:
        self.paths.append(path)
        return self._tree.read(path)


def test_nothing_dangerous_is_read_and_nothing_written() -> None:
    document = json.loads(json.dumps(machines.document("server-2x-b60-debugfs")))
    tree = document["machine"]["server-2x-b60-debugfs"]["tree"]["sys"]
    debug = tree["kernel"]["debug"]["dri"]["0000:18:00.0"]
    debug["gt0"]["force_reset"] = debug["gt0"]["uc"] = "x"
    debug["devcoredump"] = "x"
    device = tree["devices"]["pci0000:15"]["0000:15:01.0"]["0000:16:00.0"]["0000:17:01.0"]["0000:18:00.0"]
    for name in ("rom", "vpd", "resource0", "resource2_wc"):
        device[name] = {"@": "rw600", "v": "x"}
    watched = ReadOnly(SimKernel.load(document))
    recording.record(watched)
    names = {path.rpartition("/")[2] for path in watched.paths}
    assert not names & {"force_reset", "uc", "devcoredump", "rom", "vpd", "resource0", "resource2_wc", "remove", "reset", "config"}


FILES = st.dictionaries(
    st.sampled_from(["vendor", "device", "class", "sriov_numvfs", "serial", "@", "x" * 300, "\ud800", "\x00", "ü", "uevent", "driver"]),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"0x8086\n", b"0xe211\n", b"0x030000\n", b"x" * 4096])),
    max_size=8,
)


@settings(max_examples=50)
@given(FILES, FILES, st.sampled_from(["../../../devices/d", "../../../devices/pci0000:00/0000:00:02.0", "nowhere", "0000:00:02.0", "/"]))
def test_garbage_is_recorded_and_loaded(device: dict[str, bytes], drm: dict[str, bytes], link: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        function = base / "sys/devices/pci0000:00/0000:00:02.0"
        for folder in ("proc", "dev/dri", "sys/bus/pci/devices", "sys/class/drm"):
            (base / folder).mkdir(parents=True)
        (function / "drm/card0").mkdir(parents=True)
        for where, files in ((function, device), (function / "drm/card0", drm)):
            for name, data in files.items():
                try:
                    (where / name).write_bytes(data)
                except (OSError, ValueError, UnicodeEncodeError):
                    continue  # no file can have that name
        (function / "device").unlink(missing_ok=True)
        (function / "device").write_bytes(device.get("device", b"0xe211\n"))
        (base / "sys/bus/pci/devices/0000:00:02.0").symlink_to(link)
        (base / "sys/class/drm/card0").symlink_to("../../devices/pci0000:00/0000:00:02.0/drm/card0")
        real = RealKernelTree(*(str(base / root) for root in ("sys", "dev", "proc")))
        copied = again(real)
        assert without_serials(discovery.scan(copied)) == without_serials(discovery.scan(real))
