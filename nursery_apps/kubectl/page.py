"""The map as one HTML page that needs nothing from anywhere: no script, no font, no picture. All text of the cluster is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from dra.explaining.cluster import Cluster
from dra.explaining.gpus import Card, Node
from nursery_apps.kubectl import bars, words
from nursery_apps.kubectl.bars import Fill, Segment

_HUES: Final = (255, 50, 160, 310, 85, 355, 205, 125, 285, 20)
"""Of oklch, where all are equally dark under white text. Neighbours far apart, so that who comes one after the other looks different."""

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #f6f7f9; --sheet: #fff; --ink: #16181d; --soft: #5b6270; --line: #dfe3e9; --free: #eceff3;
  --ill: #c4272b; --ill-ground: #fdecec; --shade: 0 1px 2px rgb(20 25 35 / 6%), 0 4px 14px rgb(20 25 35 / 5%); --light: 51%; --vivid: .14; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1115; --sheet: #181b21; --ink: #e8eaee; --soft: #9aa3b2; --line: #2a2f38;
  --free: #242932; --ill: #ff7b7b; --ill-ground: #3a1d20; --shade: none; --light: 47%; --vivid: .12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 4px; }
.when, .soft { color: var(--soft); }
.when { margin: 0 0 24px; font-size: 14px; }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 20px; padding: 0; list-style: none; }
.figures li { flex: 1 1 104px; background: var(--sheet); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px;
  box-shadow: var(--shade); }
.figures b { display: block; font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.figures span { color: var(--soft); font-size: 13px; }
.figures .bad b { color: var(--ill); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 0 0 24px; padding: 0; list-style: none; font-size: 14px; }
.legend li { display: flex; align-items: center; gap: 8px; min-width: 0; overflow-wrap: anywhere; border-radius: 6px; }
.key { flex: none; display: grid; place-items: center; width: 24px; height: 18px; border-radius: 5px; font-size: 11px; font-weight: 600; }
.nodes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 540px), 1fr)); gap: 20px; align-items: start; }
.node { background: var(--sheet); border: 1px solid var(--line); border-radius: 16px; padding: 18px 20px 20px; box-shadow: var(--shade);
  min-width: 0; }
.node h2 { font-size: 17px; margin: 0 0 14px; display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; overflow-wrap: anywhere; }
.badge { font-size: 12px; font-weight: 600; color: var(--ill); background: var(--ill-ground); border-radius: 99px; padding: 2px 10px; }
.card + .card { margin-top: 16px; }
.card h3 { display: flex; flex-wrap: wrap; gap: 0 10px; justify-content: space-between; margin: 0 0 6px; font-size: 14px; }
.card h3 .soft { font-weight: 400; font-variant-numeric: tabular-nums; }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.bar { display: flex; gap: 3px; height: 44px; border-radius: 9px; overflow: hidden; }
.seg { display: flex; flex-direction: column; justify-content: center; min-width: 6px; padding: 0 9px; overflow: hidden;
  white-space: nowrap;   font-size: 12px; line-height: 1.3; transition: opacity .15s; outline-offset: -2px; }
.seg b, .seg span { overflow: hidden; text-overflow: ellipsis; }
.seg span { opacity: .85; } .seg em { font-style: normal; }
.seg { container-type: inline-size; }
@container (max-width: 52px) { .seg em, .seg span { display: none; } .seg b { text-align: center; margin: 0 -9px; text-overflow: clip; } }
.held { background: oklch(var(--light) var(--vivid) var(--hue)); color: #fff; }
.held.again { background: oklch(calc(var(--light) - 13%) calc(var(--vivid) * .8) var(--hue)); }
.free { background: var(--free); color: var(--soft); }
.closed { background: repeating-linear-gradient(135deg, var(--free) 0 5px, transparent 5px 10px); color: var(--soft);
  box-shadow: inset 0 0 0 1px var(--line); }
.tainted { background: repeating-linear-gradient(135deg, var(--ill-ground) 0 8px, transparent 8px 12px); color: var(--ill);
  box-shadow: inset 0 0 0 1.5px var(--ill); }
.bar .held.tainted { background: oklch(var(--light) var(--vivid) var(--hue)); color: #fff; box-shadow: inset 0 0 0 3px var(--ill); }
.bar .seg:first-child { border-radius: 9px 0 0 9px; } .bar .seg:last-child { border-radius: 0 9px 9px 0; }
.bar .seg:only-child { border-radius: 9px; }
.ill { margin: 6px 0 0; color: var(--ill); font-size: 13px; overflow-wrap: anywhere; }
.note { color: var(--ill); font-size: 14px; }
.empty { background: var(--sheet); border: 1px dashed var(--line); border-radius: 16px; padding: 40px; text-align: center;
  color: var(--soft); }
@media (max-width: 560px) { main { padding: 20px 14px 40px; } .node { padding: 14px; border-radius: 14px; } h1 { font-size: 22px; }
  .seg { padding: 0 5px; } .figures { gap: 8px; } .figures li { padding: 9px 12px; flex-basis: 88px; } .figures b { font-size: 20px; } }
@media print { body { background: #fff; } .node, .figures li { break-inside: avoid; box-shadow: none; } * { print-color-adjust: exact; } }
"""


def render(cluster: Cluster, nodes: Sequence[Node]) -> str:
    names = bars.owners(nodes)
    marks = bars.marks(names)
    keys = {name: number for number, name in enumerate(names)}
    total = bars.counts(nodes)
    figures = (
        ("", len(nodes), "nodes"),
        ("", total.cards, "cards"),
        ("", total.vfs, "VFs"),
        ("", total.held, "in use"),
        ("", total.free, "free"),
        ("bad" if total.tainted else "", total.tainted, "tainted"),
    )
    body = [
        "<h1>Intel GPUs of the cluster</h1>",
        f'<p class="when">Kubernetes {escape(cluster.version)}, as it was at <time>{escape(cluster.at)}</time></p>',
        *(f'<p class="note">{escape(line)}</p>' for line in words.unread(cluster)),
        '<ul class="figures">'
        + "".join(f'<li class="{kind}"><b>{count}</b><span>{name}</span></li>' for kind, count, name in figures)
        + "</ul>",
        _legend(marks, keys),
        '<div class="nodes">' + "".join(_node(node, marks, keys) for node in nodes) + "</div>"
        if nodes
        else '<p class="empty">No node offers GPUs of this driver.</p>',
    ]
    # Pointing at an owner shows what it has.
    shows = "".join(f'body:has([data-o="{n}"]:hover) .bar .seg:not([data-o="{n}"]){{opacity:.25}}' for n in keys.values())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Intel GPUs of the cluster</title><style>{_STYLE}{shows}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _colour(number: int) -> tuple[str, str]:
    """(class, style): hues come again darker."""
    return ("held" if number // len(_HUES) % 2 == 0 else "held again", f"--hue:{_HUES[number % len(_HUES)]}")


def _legend(marks: Mapping[str, str], keys: Mapping[str, int]) -> str:
    items = []
    for name, mark in marks.items():
        kind, style = _colour(keys[name])
        items.append(f'<li data-o="{keys[name]}"><span class="key {kind}" style="{style}">{mark}</span>{escape(name)}</li>')
    for kind, said in (("free", "free"), ("closed", "not to be had while others of the card are in use"), ("tainted", "tainted")):
        items.append(f'<li><span class="key {kind}"></span>{said}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _node(node: Node, marks: Mapping[str, str], keys: Mapping[str, int]) -> str:
    said = [
        text for wrong, text in ((not node.ready, "NotReady"), (node.cordoned, "cordoned"), (bool(node.problem), node.problem)) if wrong
    ]
    badges = "".join(f'<span class="badge">{escape(text)}</span>' for text in said)
    cards = "".join(_card(card, marks, keys) for card in node.cards)
    return f'<section class="node"><h2>{escape(node.name)}{badges}</h2>{cards}</section>'


def _card(card: Card, marks: Mapping[str, str], keys: Mapping[str, int]) -> str:
    size = f" · {words.memory(card.memory_bytes)}" if card.memory_bytes else ""
    facts = f"<code>{escape(card.pci)}</code>{size}"
    segments = "".join(_segment(segment, marks, keys) for segment in bars.bar(card))
    ill = "".join(f'<p class="ill">{escape(said)}</p>' for said in bars.ailments(card))
    title = f'<h3><span>{escape(card.model or "GPU")}</span><span class="soft">{facts}</span></h3>'
    return f'<article class="card">{title}<div class="bar">{segments}</div>{ill}</article>'


def _segment(segment: Segment, marks: Mapping[str, str], keys: Mapping[str, int]) -> str:
    device = segment.device
    size = segment.share or ("what is left" if segment.part < 1 and device.kind != "vf" else words.memory(device.memory_bytes))
    what = f"VF {device.vf_index}" if device.kind == "vf" else "whole card"
    told = {Fill.FREE: "free", Fill.TAINTED: "tainted", Fill.CLOSED: "not to be had", Fill.HELD: segment.owner}[segment.fill]
    hover = escape(f"{device.name} ({what}, {size}): {told}", quote=True)
    kind, style, owner = str(segment.fill), "", ""
    mark, first = "", "free" if segment.fill is Fill.FREE else "tainted" if segment.fill is Fill.TAINTED else ""
    if segment.fill is Fill.HELD:
        number = keys[segment.owner]
        kind, style = _colour(number)
        kind += " tainted" if device.blocked else ""
        owner = f' data-o="{number}"'
        mark, first = marks[segment.owner], f" · {segment.owner.partition('/')[2]}"
    second = ", ".join(part for part in (what if device.kind == "vf" else "", size) if part not in ("", "-"))
    return (
        f'<div class="seg {kind}" style="flex:{segment.part:.4f} 1 0;{style}"{owner} title="{hover}" role="img" aria-label="{hover}">'
        f"<b>{mark}<em>{escape(first)}</em></b><span>{escape(second)}</span></div>"
    )
