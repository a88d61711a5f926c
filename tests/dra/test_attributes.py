from __future__ import annotations

from dra import attributes
from dra.devices import Gpu, Kind, State
from dra.names import Bdf
from dra.pool import Version

FLEX = Gpu(
    bdf=Bdf("0000:4d:00.0"),
    device="0x56c0",
    driver="i915",
    model="Flex 170",
    family="Data Center Flex",
    memory_bytes=16 << 30,
    numa=1,
    pcie_root="pci0000:4a",
    max_vfs_usable=31,
    driver_version="6.12.57+deb13-amd64",
    link_speed="16.0 GT/s",
    link_width=16,
)


def test_everything_users_of_intels_driver_select_by_is_there_with_the_same_type() -> None:
    found = attributes.of(FLEX)
    assert {
        "model": "Flex 170",
        "family": "Data Center Flex",
        "driver": "i915",
        "sriov": True,
        "type": "gpu",
        "pciId": "0x56c0",
        "pciAddress": "0000:4d:00.0",
        "pciRoot": "4a",
        "health": "Unknown",
        "resource.kubernetes.io/pcieRoot": "pci0000:4a",
        "resource.kubernetes.io/pciBusID": "0000:4d:00.0",
    }.items() <= found.items()
    assert attributes.capacity_of(FLEX) == {"memory": "16384Mi", "millicores": "1k"}


def test_what_is_ours() -> None:
    found = attributes.of(FLEX)
    assert found["numaNode"] == found["resource.kubernetes.io/numaNode"] == 1
    assert found["driverVersion"] == Version("6.12.57+deb13-amd64")
    assert (found["tiles"], found["integrated"], found["linkWidth"], found["maxVFs"]) == (1, False, 16, 31)


def test_a_vf_names_its_card() -> None:
    vf = Gpu(bdf=Bdf("0000:4d:00.3"), device="0x56c0", kind=Kind.VF, parent=FLEX.bdf, vf_index=3)
    assert {"type": "vf", "pfPciAddress": "0000:4d:00.0", "vfIndex": 3}.items() <= attributes.of(vf).items()


def test_unknown_is_said_where_a_missing_key_would_abort_scheduling_and_left_out_where_any_value_would_lie() -> None:
    bare = Gpu(bdf=Bdf("0000:00:02.0"), device="0x9999")
    found = attributes.of(bare)
    assert (found["model"], found["family"], found["driver"], found["resource.kubernetes.io/pcieRoot"]) == ("Unknown", "Unknown", "", "")
    assert not found.keys() & {"numaNode", "resource.kubernetes.io/numaNode", "serial", "driverVersion", "linkSpeed", "linkWidth"}
    assert "memory" not in attributes.capacity_of(bare)
    rich = attributes.of(FLEX)
    assert all(type(found[name]) is type(rich[name]) for name in found)


def test_health_is_what_monitoring_says_but_a_wedged_card_speaks_for_itself() -> None:
    wedged = Gpu(bdf=Bdf("0000:00:02.0"), device="0x9999", state=State.WEDGED)
    assert attributes.of(FLEX, healthy=True)["health"] == "Healthy"
    assert attributes.of(FLEX, healthy=False)["health"] == "Unhealthy"
    assert attributes.of(wedged, healthy=True)["health"] == "Unhealthy"
