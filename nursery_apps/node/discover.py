"""`gpu-node-plugin discover`: what one scan of the machine found, for programs and for people."""

from __future__ import annotations

import msgspec

from dra.devices import Gpu, Inventory

_SHOWN = (
    "bdf", "device", "driver", "model", "family", "kind", "integrated", "memory_bytes", "tiles", "card", "render", "numa", "pcie_root",
    "max_vfs_usable", "vfs_now", "state", "publishable", "why", "parent", "vf_index", "serial", "driver_version", "link_speed",
    "link_width", "boot_vga", "iommu_group", "vfio_device",
)  # fmt: skip


def render_json(inventory: Inventory) -> str:
    """`{"gpus": [...], "ignored": [...]}`, null where unknown; stable from run to run."""
    document = {
        "gpus": [{"name": gpu.name} | {field: getattr(gpu, field) for field in _SHOWN} for gpu in inventory.gpus],
        "ignored": [msgspec.to_builtins(entry) for entry in inventory.ignored],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def print_table(inventory: Inventory) -> None:
    """A table on standard output; colours on a terminal only."""
    from rich.console import Console  # noqa: PLC0415  people's commands only: costs the daemon 5 MB otherwise
    from rich.table import Table  # noqa: PLC0415

    console = Console(emoji=False, highlight=False)  # `0000:cd:00.0` is an address, not a compact disc
    if not console.is_terminal:
        console.width = 200
    table = Table(box=None, pad_edge=False)
    for heading in ("address", "model", "driver", "kind", "memory", "nodes", "numa", "VFs", "state", "offered", "why"):
        table.add_column(heading, no_wrap=heading != "why", style="dim" if heading == "why" else None)
    for gpu in inventory.gpus:
        colour = "green" if gpu.publishable else "yellow" if gpu.state in ("passthrough", "healthy") else "red"
        table.add_row(
            gpu.bdf,
            gpu.model or f"unknown ({gpu.device})",
            gpu.driver or "-",
            _kind(gpu),
            "shared" if gpu.integrated else f"{gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else "?",
            _nodes(gpu),
            "-" if gpu.numa < 0 else str(gpu.numa),
            f"{gpu.vfs_now}/{gpu.max_vfs_usable}" if gpu.max_vfs_usable else "-",
            f"[{colour}]{gpu.state}[/]",
            "yes" if gpu.publishable else "no",
            gpu.why or "",
        )
    console.print(table)
    offered = sum(gpu.publishable for gpu in inventory.gpus)
    count, others = len(inventory.gpus), len(inventory.ignored)
    found = f"{count} GPU{'' if count == 1 else 's'}, {offered} of them fit to be offered"
    console.print(f"{found}; {others} other device{'' if others == 1 else 's'} ignored")


def _kind(gpu: Gpu) -> str:
    if gpu.vf_index is not None:
        return f"VF {gpu.vf_index} of {gpu.parent}"
    return gpu.kind.upper() if gpu.kind == "vf" or gpu.max_vfs_usable else "GPU"


def _nodes(gpu: Gpu) -> str:
    nodes = [f"card{gpu.card}" if gpu.card is not None else "", f"renderD{gpu.render}" if gpu.render is not None else ""]
    return " ".join(filter(None, nodes)) or "-"
