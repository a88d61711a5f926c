"""The table of models is whole."""

from __future__ import annotations

from dra import models


def test_the_families_the_original_driver_supported_are_known() -> None:
    families = {model.family for model in models.table().models.values()}
    assert {"Data Center Max", "Data Center Flex", "Arc A-Series", "Arc B-Series", "Arc Pro B-Series", "DG1", "Raptor Lake-P"} <= families


def test_ids_are_spelt_as_sysfs_does() -> None:
    assert all(len(device) == 6 and device.startswith("0x") and device == device.lower() for device in models.table().models)


def test_bridges_of_cards_are_no_gpus_and_unknown_ids_are_unknown() -> None:
    assert all(models.find(port) is None for port in models.table().card_ports)
    assert models.find("0xffff") is None


def test_a_card_that_shows_one_vf_too_many_is_limited() -> None:
    model = models.find("0x0bd5")
    assert model is not None and (model.max_vfs, model.tiles) == (62, 2)
