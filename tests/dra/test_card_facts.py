from __future__ import annotations

import pytest

from dra import card_facts, discovery
from dra.names import Bdf
from dra.vf_cards import Interface
from tests.fakes import machines


@pytest.mark.parametrize(
    ("machine", "bdf", "interface", "attributes"),
    [
        ("server-8x-flex170", "0000:4d:00.0", Interface.PRELIM, set()),
        ("server-4x-b60", "0000:18:00.0", Interface.ADMIN, {"exec_quantum_ms", "preempt_timeout_us", "vram_quota"}),
        ("server-2x-b60-debugfs", "0000:18:00.0", Interface.NONE, set()),
        ("laptop-iris-xe", "0000:00:02.0", Interface.NONE, set()),
    ],
)
def test_which_files_take_quotas(machine: str, bdf: str, interface: Interface, attributes: set[str]) -> None:
    kernel = machines.kernel(machine)
    gpu = discovery.scan(kernel).by_bdf()[Bdf(bdf)]
    facts = card_facts.read(kernel, gpu, with_quotas=True)
    assert (facts.card.interface, facts.card.attributes, facts.driver) == (interface, attributes, gpu.driver)
    assert (facts.provisioning is None) == (interface is Interface.NONE) and bool(facts.quotas) == (interface is not Interface.NONE)
    assert card_facts.read(kernel, gpu).quotas == ({} if interface is Interface.NONE else None), "not read unless asked for"


def test_vfs_are_found_with_their_index_and_whether_they_can_be_used() -> None:
    kernel = machines.kernel("server-8x-flex170")
    pf = Bdf("0000:2c:00.0")
    found = card_facts.vfs(kernel, pf)
    assert list(found) == [1, 2, 3, 4] and all(vf.is_up for vf in found.values())
    kernel.unbind(found[2].bdf)
    assert [index for index, vf in card_facts.vfs(kernel, pf).items() if not vf.is_up] == [2]
    kernel.modprobe("vfio-pci")
    kernel.write(f"sys/bus/pci/devices/{found[2].bdf}/driver_override", "vfio-pci")
    kernel.write("sys/bus/pci/drivers_probe", found[2].bdf)
    assert card_facts.vfs(kernel, pf)[2].is_up, "as a virtual machine's"


def test_the_number_is_never_read_from_the_file_that_waits_for_the_cards_lock() -> None:
    kernel = machines.kernel("server-8x-flex170")
    gpu = discovery.scan(kernel).by_bdf()[Bdf("0000:2c:00.0")]
    kernel.fail("*/sriov_numvfs", "read", 5, times=None)
    assert len(card_facts.read(kernel, gpu, with_quotas=True).vfs) == 4


def test_a_card_that_is_gone_reads_as_one_without_anything() -> None:
    kernel = machines.kernel("server-4x-b60")
    gpu = discovery.scan(kernel).by_bdf()[Bdf("0000:18:00.0")]
    kernel.unplug(gpu.bdf)
    facts = card_facts.read(kernel, gpu, with_quotas=True)
    assert (facts.driver, facts.vfs, facts.quotas, facts.provisioning) == (None, {}, {}, None)
