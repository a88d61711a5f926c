"""`kubectl intel-gpu who DEVICE`: the claims and pods that have a device, and since when."""

from __future__ import annotations

import argparse

import msgspec
from rich.table import Table
from rich.text import Text

from dra.explaining import gpus
from dra.explaining.cluster import Cluster
from dra.explaining.gpus import Card, Device, Holder, Node
from nursery_apps.kubectl import words
from nursery_apps.kubectl.command import FOUND, OK, Command, Given, gpu_nodes
from nursery_apps.kubectl.problems import Missing, Refused
from nursery_apps.kubectl.reading import GPUS


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", help="name in its slice, PCI address, or either behind the node's name: node1/0000:03:00.0"
    )


def _run(given: Given) -> int:
    cluster = given.reading.cluster(GPUS, claims_namespace=given.claims_namespace)
    wanted = given.options.device
    found = gpus.find(gpu_nodes(cluster), wanted)
    if not found:
        raise Missing(f"no node has a GPU {wanted}; `kubectl intel-gpu list` names those that there are")
    dated = [(node, card, msgspec.structs.replace(device, holders=_dated(given, device))) for node, card, device in found]
    code = OK if all(device.held for _, _, device in dated) else FOUND
    if given.wants_json:
        devices = [
            {"node": node.name, "card": card.pci, "state": words.state(device, gpus.free(card, device)), **msgspec.to_builtins(device)}
            for node, card, device in dated
        ]
        given.write_json("GpuHolders", {"at": cluster.at, "devices": devices, "unread": list(words.unread(cluster))})
        return code
    for node, card, device in dated:
        _print(given, cluster, node, card, device)
    for line in words.unread(cluster):
        given.console.print(Text(line, style="yellow"))
    return code


def _dated(given: Given, device: Device) -> tuple[Holder, ...]:
    """Where the claim does not say since when: since its first pod started."""
    return tuple(
        msgspec.structs.replace(
            holder, since=min((each for each in (_started(given, holder, pod) for pod in holder.pods) if each), default=None)
        )
        if holder.since is None
        else holder
        for holder in device.holders
    )


def _started(given: Given, holder: Holder, pod: str) -> str | None:
    try:
        body = given.reading.one("pods", holder.namespace, pod)
    except (Missing, Refused):
        return None
    started = (body.get("status") or {}).get("startTime") or body["metadata"].get("creationTimestamp")
    return str(started) if started else None


def _print(given: Given, cluster: Cluster, node: Node, card: Card, device: Device) -> None:
    word = words.state(device, gpus.free(card, device))
    given.console.print(Text(f"{node.name}/{device.name}  {device.model} {words.memory(device.memory_bytes)}: {word}", style="bold"))
    holders = [(device.name, holder) for holder in device.holders]
    if not device.held:  # what keeps it from others without anybody having it
        kept = card.vfs if device.kind != "vf" else (card.whole,) if card.whole is not None else ()
        holders += [(other.name, holder) for other in kept for holder in _dated(given, other) if not holder.admin]
    if holders:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("NAMESPACE", "CLAIM", "REQUEST", "PODS", "DEVICE", "HAS", "SINCE"):
            table.add_column(title, overflow="fold")
        for name, holder in holders:
            has = "looks on" if holder.admin else words.share(holder) or "all of it"
            row = (holder.namespace, holder.claim, holder.request or "-", ", ".join(holder.pods) or "-", name, has)
            table.add_row(*(Text(cell) for cell in row), Text(words.age(holder.since, cluster.at)))
        given.console.print(table)
    for taint in device.taints:
        given.console.print(Text(f"tainted {taint} by {taint.by}", style="red"))


COMMAND = Command(
    name="who",
    summary="the claims and pods that have a device, and since when",
    epilog="Exit code 1: nobody has it.",
    flags=_flags,
    run=_run,
)
