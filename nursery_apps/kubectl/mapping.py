"""`kubectl intel-gpu map`: the cluster's GPUs and VFs drawn, in the terminal or as a page."""

from __future__ import annotations

import argparse

from rich.text import Text

from nursery_apps.kubectl import bars, drawing, page, words
from nursery_apps.kubectl.command import OK, Command, Given, gpu_nodes
from nursery_apps.kubectl.reading import GPUS


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", metavar="FILE", help="write a page that needs nothing else, instead")


def _run(given: Given) -> int:
    cluster = given.reading.cluster(GPUS, claims_namespace=given.claims_namespace)
    nodes = gpu_nodes(cluster)
    if given.options.html:
        given.save(given.options.html, page.render(cluster, nodes))
    if given.wants_json:
        drawn = [
            {
                "name": node.name,
                "cards": [
                    {
                        "pci": card.pci,
                        "model": card.model,
                        "segments": [
                            {"device": each.device.name, "part": round(each.part, 4), "fill": each.fill, "owner": each.owner}
                            for each in bars.bar(card)
                        ],
                    }
                    for card in node.cards
                ],
            }
            for node in nodes
        ]
        body = {"at": cluster.at, "owners": bars.owners(nodes), "counts": bars.counts(nodes), "nodes": drawn}
        given.write_json("GpuMap", {**body, "unread": list(words.unread(cluster))})
    elif given.options.html:
        given.console.print(f"wrote {given.options.html}", markup=False)
    elif nodes:
        drawing.draw(given.console, nodes)
    else:
        given.console.print("no GPUs of this driver: nothing is published")
    if not given.wants_json:
        for line in words.unread(cluster):
            given.console.print(Text(line, style="yellow"))
    return OK


COMMAND = Command(
    name="map",
    summary="the cluster's GPUs and virtual functions, drawn",
    epilog="Letters in the bars are those of the legend.",
    flags=_flags,
    run=_run,
)
