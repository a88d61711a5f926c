"""The map in the terminal: without colours it says the same."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dra.explaining.gpus import Card, Device, Holder, Node, Taint
from nursery_apps.kubectl import drawing

SICK = Taint(key="gpu.intel.com/wedged", effect="NoExecute", by="the driver")


def drawn(width: int, *cards: Card) -> list[str]:
    out = io.StringIO()
    drawing.draw(Console(file=out, width=width, color_system=None), (Node(name="n1", cordoned=True, cards=cards),))
    return out.getvalue().splitlines()


def card(pod: str = "", *, sick: bool = False) -> Card:
    holders = (Holder(namespace="ns", claim="c", pods=(pod,)),) if pod else ()
    device = Device(name="d", pci="0000:01:00.0", kind="gpu", holders=holders, taints=(SICK,) if sick else ())
    return Card(pci="0000:01:00.0", model="Flex 170", memory_bytes=16 << 30, whole=device)


def test_letters_say_who_and_signs_say_what() -> None:
    lines = drawn(100, card("a"), card("b", sick=True), card(sick=True))
    assert "n1  cordoned" in lines[0]
    assert "A" in lines[1] and "B!" in lines[2] and "wedged" in lines[3] and "××××" in lines[4]
    assert " A  ns/a    B  ns/b" in lines[7]


@pytest.mark.parametrize("width", [30, 60, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    vfs = tuple(Device(name=f"v{n}", pci="", kind="vf", memory_bytes=1 << 30, vf_index=n) for n in range(1, 17))
    cut = Card(pci="0000:02:00.0", model="Data Center GPU Max 1550", memory_bytes=128 << 30, vfs=vfs)
    assert max(map(len, drawn(width, card("a"), cut))) <= width
