"""The page: whole, alone, and safe from what names a cluster has."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from dra.explaining.cluster import Cluster
from dra.explaining.gpus import Card, Device, Holder, Node, Taint
from nursery_apps.kubectl import page

EVIL = "\"><script>alert(1)</script>&'<img src=http://x/>"
EMPTY = Cluster(version="v1.36.0", api="v1", at="2026-01-01T00:00:00Z")


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evil_node() -> Node:
    holder = Holder(namespace=EVIL, claim=EVIL, pods=(EVIL,))
    device = Device(name=EVIL, pci=EVIL, kind="gpu", model=EVIL, holders=(holder,), taints=(Taint(key=EVIL, effect="NoExecute", by=EVIL),))
    return Node(name=EVIL, problem=EVIL, cards=(Card(pci=EVIL, model=EVIL, whole=device),))


def test_all_text_of_the_cluster_is_escaped() -> None:
    seen = Seen(page.render(EMPTY, (evil_node(),)))
    assert {tag for tag, _ in seen.tags}.isdisjoint({"script", "img"}) and seen.open == []
    assert f"{EVIL}/{EVIL}" in seen.text
    [bar] = [attributes for _, attributes in seen.tags if attributes.get("role") == "img"]
    assert EVIL in str(bar["title"])


def test_it_needs_nothing_from_anywhere_and_knows_dark() -> None:
    text = page.render(EMPTY, (evil_node(),))
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert re.findall(r"<(?:link|script|iframe|object)\b", text) == []
    assert all("src" not in attributes and "href" not in attributes for _, attributes in Seen(text).tags)


def test_a_cluster_without_gpus_is_said_to_be_one() -> None:
    assert "No node offers GPUs of this driver." in Seen(page.render(EMPTY, ())).text
