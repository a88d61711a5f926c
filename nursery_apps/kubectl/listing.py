"""`kubectl intel-gpu list`: nodes, their GPUs and VFs, and who has each."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from dra.explaining import gpus
from dra.explaining.gpus import Card, Device, Node
from nursery_apps.kubectl import words
from nursery_apps.kubectl.command import FOUND, OK, Command, Given, gpu_nodes
from nursery_apps.kubectl.reading import GPUS

_STYLES = {"free": "green", "in use": "cyan", "tainted": "red", "cut": "dim", "card in use": "dim"}


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", nargs="*", metavar="NODE", help="only these nodes")


def _run(given: Given) -> int:
    cluster = given.reading.cluster(GPUS, claims_namespace=given.claims_namespace)
    nodes = gpu_nodes(cluster)
    if given.options.node:
        nodes = tuple(node for node in nodes if node.name in given.options.node)
    code = FOUND if any(_is_ill(node) for node in nodes) else OK
    if given.wants_json:
        given.write_json(
            "GpuList", {"at": cluster.at, "kubernetes": cluster.version, "nodes": nodes, "unread": list(words.unread(cluster))}
        )
        return code
    if nodes:
        given.console.print(_table(nodes))
    else:
        given.console.print("no GPUs of this driver: nothing is published" + (" on these nodes" if given.options.node else ""))
    for line in words.unread(cluster):
        given.console.print(Text(line, style="yellow"))
    return code


def _is_ill(node: Node) -> bool:
    return bool(node.problem) or not node.ready or any(each.blocked for card in node.cards for each in card.devices)


def _table(nodes: tuple[Node, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("NODE", "DEVICE", "PCI", "MODEL", "DRIVER", "MEMORY", "STATE", "HELD BY"):
        # Where there is no room, what people wrote is folded, and what they copy stays whole.
        foldable = title in ("NODE", "MODEL", "HELD BY")
        table.add_column(title, justify="right" if title == "MEMORY" else "left", overflow="fold", no_wrap=not foldable)
    for node in nodes:
        first = True
        for card in node.cards:
            for device in card.devices:
                table.add_row(*_row(node if first else None, card, device))
                first = False
    return table


def _row(node: Node | None, card: Card, device: Device) -> list[Text]:
    word = words.state(device, gpus.free(card, device))
    told = Text(word, style=_STYLES[word])
    if device.blocked and word != "tainted":
        told.append(", tainted", style="red")
    holders = [words.holder(one) for one in device.holders] + [f"{taint} by {taint.by}" for taint in device.taints]
    branch = "" if device.kind != "vf" else ("└ " if device is card.vfs[-1] else "├ ")
    return [
        _named(node) if node is not None else Text(),
        Text(branch + device.name),
        Text(device.pci or "-"),
        Text(f"{device.model}{f' ({device.profile})' if device.profile else ''}"),
        Text(device.driver or "-"),
        Text(words.memory(device.memory_bytes)),
        told,
        Text("\n".join(holders) or "-"),
    ]


def _named(node: Node) -> Text:
    name = Text(node.name, style="bold")
    for wrong, said in ((not node.ready, "NotReady"), (node.cordoned, "cordoned"), (bool(node.problem), node.problem)):
        if wrong:
            name.append(f"\n{said}", style="not bold red")
    return name


COMMAND = Command(
    name="list",
    summary="nodes, their GPUs and virtual functions, and who has each",
    epilog="Exit code 1: a device is tainted, or a node with GPUs is not Ready or cannot give them away.",
    flags=_flags,
    run=_run,
)
