"""The map for the terminal: a block for each node, a bar for each card. Letters say the same as colours."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from dra.explaining.gpus import Card, Node
from nursery_apps.kubectl import bars, words
from nursery_apps.kubectl.bars import Fill, Segment

_COLOURS = ("blue", "magenta", "cyan", "yellow", "green", "bright_blue", "bright_magenta", "bright_cyan")
_SIGNS = {Fill.FREE: " ", Fill.CLOSED: "·", Fill.TAINTED: "×"}
_STYLES = {Fill.FREE: "on grey30", Fill.CLOSED: "dim", Fill.TAINTED: "bold red"}
_NARROWEST, _WIDEST = 16, 64


def draw(console: Console, nodes: tuple[Node, ...]) -> None:
    names = bars.owners(nodes)
    marks = bars.marks(names)
    styles = {name: f"black on {_COLOURS[at % len(_COLOURS)]}" for at, name in enumerate(names)}
    width = max((len(_label(card)) for node in nodes for card in node.cards), default=0)
    room = max(_NARROWEST, min(_WIDEST, console.width - width - 8))
    for node in nodes:
        lines: list[Text] = []
        for card in node.cards:
            # Where there is no room beside it, the label goes above the bar.
            beside = console.width >= width + room + 8
            label = Text(_label(card).ljust(width) if beside else _label(card))
            drawn = _bar(card, room, marks, styles)
            lines += [Text.assemble(label, "  ", drawn)] if beside else [label, drawn]
            lines += [Text(f"  × {said}", style="red") for said in bars.ailments(card)]
        console.print(Panel(Group(*lines), title=_title(node), title_align="left", border_style="dim", expand=False))
    console.print(_legend(marks, styles))
    total = bars.counts(nodes)
    console.print(f"{total.cards} cards, {total.vfs} VFs: {total.held} devices in use, {total.free} free, {total.tainted} tainted")


def _label(card: Card) -> str:
    return f"{card.pci}  {card.model}  {words.memory(card.memory_bytes)}"


def _title(node: Node) -> Text:
    title = Text(node.name, style="bold")
    for wrong, said in ((not node.ready, "NotReady"), (node.cordoned, "cordoned"), (bool(node.problem), node.problem)):
        if wrong:
            title.append(f"  {said}", style="not bold red")
    return title


def _bar(card: Card, room: int, marks: Mapping[str, str], styles: Mapping[str, str]) -> Text:
    segments = bars.bar(card)
    inner = max(len(segments), room - len(segments) - 1)
    drawn, at = Text("▕"), 0.0
    for number, segment in enumerate(segments):
        begin, at = round(at * inner), at + segment.part
        drawn.append(*_cell(segment, max(1, round(at * inner) - begin), marks, styles))
        drawn.append("▏" if number == len(segments) - 1 else "│")
    return drawn


def _cell(segment: Segment, width: int, marks: Mapping[str, str], styles: Mapping[str, str]) -> tuple[str, str]:
    if segment.fill is not Fill.HELD:
        return _SIGNS[segment.fill] * width, _STYLES[segment.fill]
    mark = marks[segment.owner]
    sick = "!" if segment.device.blocked else ""
    return f"{mark}{sick}"[:width].center(width), styles[segment.owner]


def _legend(marks: Mapping[str, str], styles: Mapping[str, str]) -> Text:
    legend = Text()
    for name, mark in marks.items():
        legend.append(f" {mark} ", style=styles[name]).append(f" {name}   ")
    legend.append("   ", style=_STYLES[Fill.FREE]).append(" free   ")
    legend.append("···", style=_STYLES[Fill.CLOSED]).append(" not to be had while others of the card are in use   ")
    return legend.append("×××", style=_STYLES[Fill.TAINTED]).append(" tainted")
