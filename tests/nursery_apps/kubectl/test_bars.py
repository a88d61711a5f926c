"""Cards as bars."""

from __future__ import annotations

import pytest

from dra.explaining.gpus import Card, Device, Holder, Node, Taint
from nursery_apps.kubectl import bars
from nursery_apps.kubectl.bars import Fill

GIB = 1 << 30
SICK = Taint(key="gpu.intel.com/wedged", effect="NoExecute", by="the driver")


def card(*vfs: Device, **whole: object) -> Card:
    given = {"name": "c", "pci": "0000:01:00.0", "kind": "gpu", "memory_bytes": 16 * GIB, **whole}
    return Card(pci="0000:01:00.0", model="Flex 170", memory_bytes=16 * GIB, whole=Device(**given), vfs=vfs)  # type: ignore[arg-type]


def vf(number: int, gib: int, *pods: str, taints: tuple[Taint, ...] = ()) -> Device:
    holders = tuple(Holder(namespace="ns", claim="c", pods=(pod,)) for pod in pods)
    return Device(name=f"v{number}", pci="", kind="vf", memory_bytes=gib * GIB, vf_index=number, holders=holders, taints=taints)


def test_vfs_are_as_wide_as_their_memory() -> None:
    segments = bars.bar(card(vf(1, 8, "a"), vf(2, 4), vf(3, 4, taints=(SICK,))))
    assert [(each.part, each.fill, each.owner) for each in segments] == [
        (0.5, Fill.HELD, "ns/a"),
        (0.25, Fill.FREE, ""),
        (0.25, Fill.TAINTED, ""),
    ]


def test_a_card_in_use_is_one_piece_whatever_it_could_be_cut_in() -> None:
    [segment] = bars.bar(card(vf(1, 8), vf(2, 8), holders=(Holder(namespace="ns", claim="c"),)))
    assert (segment.part, segment.owner) == (1.0, "ns/claim c")


def test_shares_are_as_wide_as_what_they_have_and_the_rest_is_free() -> None:
    holders = tuple(
        Holder(namespace="ns", claim=pod, pods=(pod,), share={"memory": amount}) for pod, amount in (("a", "4Gi"), ("b", "8Gi"))
    )
    segments = bars.bar(card(shared=True, holders=holders))
    assert [(each.owner, each.fill) for each in segments] == [("ns/a", Fill.HELD), ("ns/b", Fill.HELD), ("", Fill.FREE)]
    assert [each.part for each in segments] == pytest.approx([0.25, 0.5, 0.25])


def test_who_only_looks_fills_nothing() -> None:
    [segment] = bars.bar(card(holders=(Holder(namespace="ns", claim="monitor", admin=True),)))
    assert segment.fill is Fill.FREE


def test_marks_go_on_after_z() -> None:
    assert list(bars.marks([str(number) for number in range(28)]).values())[24:] == ["Y", "Z", "A1", "B1"]


def test_counts_and_ailments() -> None:
    sick = card(vf(1, 8, "a", taints=(SICK,)), vf(2, 8))
    assert bars.counts([Node(name="n", cards=(sick,))]) == bars.Counts(cards=1, vfs=2, held=1, free=1, tainted=1)
    assert bars.ailments(sick) == ["gpu.intel.com/wedged:NoExecute by the driver (v1)"]
