"""docs/reference/attributes.md: what ResourceSlices say of devices, with what simulated machines show as examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dra import attributes, discovery
from dra.devices import Gpu
from dra.names import DRIVER_NAME
from dra.pool import AttributeValue, Version
from dra.sim_kernel.kernel import SimKernel

MACHINES: Final = Path(__file__).parents[1] / "machines"

HEAD = f"""# Attributes and capacities

Made from the code by `tools/schemas`; do not edit.

What ResourceSlices say of each device, and claims select by in CEL: an attribute `family` is
`device.attributes["{DRIVER_NAME}"].family`, one of another domain is `device.attributes["resource.kubernetes.io"].pcieRoot`.

A key that a device does not have is an *error* in CEL, not a "no", and keeps the pod from being scheduled: ask for what is not said of
every device with `in` first. Names and types are those of Intel's own driver, and more.

| attribute | type | said of | example | meaning |
|---|---|---|---|---|
"""

CAPACITIES = f"""
A device that is tainted carries taints `{DRIVER_NAME}/<condition>`: see [health.md](health.md).

## Capacities

In CEL: `device.capacity["{DRIVER_NAME}"].memory.compareTo(quantity("8Gi")) >= 0`. A capacity that is not known is left out, never 0.

| capacity | said of | example | meaning |
|---|---|---|---|
"""

MEANING: Final = {
    "driver": "kernel driver it is bound to: `i915`, `xe`, a vfio driver, or empty",
    "driverVersion": "of that driver, as a semantic version",
    "family": "`Data Center Flex`, `Arc B-Series`; the platform of an integrated GPU; `Unknown`. See [hardware.md](../hardware.md)",
    "health": "`Healthy`, `Unhealthy`, or `Unknown` where nothing tells. For people: taints keep pods away, not this",
    "integrated": "whether it is part of a processor",
    "linkSpeed": "most that its PCIe slot and the card agree on",
    "linkWidth": "lanes of the same",
    "maxVFs": "how many VFs can be made of it; 0 for VFs",
    "model": "marketing name, or `Unknown`",
    "numaNode": "NUMA node, as Intel's driver spells it",
    "pciAddress": "its PCI address",
    "pciId": "PCI device id",
    "pciRoot": "bus of its PCIe root, in the deprecated spelling of Intel's driver",
    "pfPciAddress": "the card a VF is cut from; for a whole GPU its own. `matchAttribute` over it gives VFs of one card",
    "profile": "profile that a VF was or will be cut by; empty for a whole GPU",
    "resource.kubernetes.io/numaNode": "NUMA node, in the name that all drivers share",
    "resource.kubernetes.io/pciBusID": "PCI address, in the name that all drivers share",
    "resource.kubernetes.io/pcieRoot": "PCIe root, the same for all drivers: with `matchAttribute` a GPU and a network card that are near",
    "serial": "serial number of the card",
    "sriov": "whether VFs can be made of it",
    "tiles": "tiles of the card",
    "type": "`gpu`, or `vf` for a virtual function",
    "vfIndex": "1 and up for VFs, as the kernel counts; 0 for a whole GPU",
}
"""Attribute -> what it says; the order is the page's."""

CAPACITY: Final = {
    "memory": "local memory; of a GPU that is [shared by memory](../operating.md#sharing-without-vfs), what claims take parts of",
    "millicores": "thousandths of a card: 1000 for a whole one, the profile's share for a VF. It only informs",
    "shares": "how many claims may have it at once, where it is [shared by number](../operating.md#sharing-without-vfs)",
}


def page() -> str:
    gpus = list(_simulated())
    said = [attributes.of(gpu) for gpu in gpus]
    names = {name for one in said for name in one}
    if names != MEANING.keys():
        raise ValueError(f"MEANING in {__file__} and dra/attributes.py differ: {sorted(names ^ MEANING.keys())}")
    rows = "".join(_attribute(name, [one[name] for one in said if name in one], len(said)) for name in MEANING)
    sizes = [attributes.capacity_of(gpu) for gpu in gpus]
    return HEAD + rows + CAPACITIES + "".join(_capacity(name, [one[name] for one in sizes if name in one], len(sizes)) for name in CAPACITY)


def _simulated() -> Iterator[Gpu]:
    for path in sorted(MACHINES.glob("*.json")):
        document = json.loads(path.read_text())
        for machine in document["machine"]:
            yield from discovery.scan(SimKernel.load(document, machine)).gpus


def _attribute(name: str, values: list[AttributeValue], devices: int) -> str:
    kind = {bool: "bool", int: "int", str: "string", Version: "version"}[type(values[0])]
    shown = next((value for value in values if value not in ("", attributes.UNKNOWN, 0, False)), values[0])
    text = shown.text if isinstance(shown, Version) else json.dumps(shown)
    return f"| `{name}` | {kind} | {_said_of(len(values), devices)} | `{text}` | {MEANING[name]} |\n"


def _capacity(name: str, values: list[str], devices: int) -> str:
    said_of = _said_of(len(values), devices) if values else "where the settings say so"
    return f"| `{name}` | {said_of} | `{values[0] if values else 4}` | {CAPACITY[name]} |\n"


def _said_of(some: int, all_of_them: int) -> str:
    return "every device" if some == all_of_them else "where it is known"
