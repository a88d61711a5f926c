"""What is taken out of a recorded machine, and what is left as it is."""

from __future__ import annotations

import pytest

from dra import blanking
from dra.blanking import Blanks


def test_serial_numbers_are_replaced_by_distinct_ones() -> None:
    blanks = Blanks()
    one, other = blanks.blank("prelim_csc_unique_id", "0xdeadbeef\n"), blanks.blank("prelim_csc_unique_id", "0xdeadbef0\n")
    assert one != other and "dead" not in one + other and one.endswith("\n")
    assert blanks.blank("unique_id", "0xdeadbeef\n") == one, "the same one everywhere"
    assert blanks.blank("serial_number", "\n") == "\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("6F1E4D6E-0A8A-4D0B-9D0E-2B1C6F6F0A11\n", f"{blanking.UUID}\n"),
        ("at aa:bb:cc:dd:ee:ff, 00:11:22:33:44:55", f"at {blanking.MAC}, {blanking.MAC}"),
        ("PCI_SLOT_NAME=0000:18:00.0\n", "PCI_SLOT_NAME=0000:18:00.0\n"),
        ("pci:v00008086d0000E211sv00008086sd00001020bc03sc00i00\n", "pci:v00008086d0000E211sv00008086sd00001020bc03sc00i00\n"),
        ("\ufffd\x00\x01", "\ufffd\x00\x01"),
    ],
)
def test_uuids_and_mac_addresses_go_and_pci_addresses_stay(text: str, left: str) -> None:
    assert Blanks().blank("label", text) == left


def test_of_the_command_line_only_what_is_about_gpus_stays() -> None:
    line = "BOOT_IMAGE=/vmlinuz root=UUID=x ro ip=10.0.0.7::gw:mask:host intel_iommu=on iommu=pt xe.max_vfs=4 pci=realloc hostname=h"
    assert blanking.command_line(line) == "intel_iommu=on iommu=pt xe.max_vfs=4 pci=realloc\n"
