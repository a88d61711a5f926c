"""Cards, VFs and holders from slices and claims."""

from __future__ import annotations

from dra.explaining import gpus, slice_gpus
from tests.fakes.gpu_clusters import cluster, device, holding, node, slice_of

VF1, VF2 = "0000-01-00-1-0x56c0", "0000-01-00-2-0x56c0"


def test_vfs_are_below_their_card_and_exclude_it() -> None:
    parts = [device(2, "vf", card=1, memory="4Gi"), device(1), device(1, "vf", card=1, memory="4Gi")]
    [here] = slice_gpus.nodes(cluster(nodes=[node()], slices=[slice_of(*parts)], claims=[holding("c", VF1, pods=("a", "b"))]))
    [card] = here.cards
    assert [vf.name for vf in card.vfs] == [VF1, VF2] and card.memory_bytes == 16 << 30
    assert card.whole is not None and not gpus.free(card, card.whole)
    assert card.vfs[0].held and gpus.free(card, card.vfs[1])
    assert card.vfs[0].holders[0].pods == ("a", "b")


def test_a_whole_card_in_use_excludes_its_vfs() -> None:
    slices = [slice_of(device(1), device(1, "vf", card=1))]
    [here] = slice_gpus.nodes(cluster(slices=slices, claims=[holding("c", "0000-01-00-0-0x56c0")]))
    assert not gpus.free(here.cards[0], here.cards[0].vfs[0])


def test_only_the_newest_generation_counts() -> None:
    old, new = slice_of(device(1), device(2)), slice_of(device(1), name="new")
    new["spec"]["pool"]["generation"] = 2
    [here] = slice_gpus.nodes(cluster(slices=[old, new]))
    assert len(here.cards) == 1


def test_devices_are_found_by_name_address_and_node() -> None:
    nodes = slice_gpus.nodes(cluster(slices=[slice_of(device(1)), slice_of(device(1), node="n2")]))
    for wanted, count in (("0000-01-00-0-0x56c0", 2), ("0000:01:00.0", 2), ("n2/0000:01:00.0", 1), ("n3/0000:01:00.0", 0)):
        assert len(gpus.find(nodes, wanted)) == count


def test_a_node_that_is_gone_or_not_ready_is_said() -> None:
    seen = cluster(nodes=[node("n2", ready="Unknown")], slices=[slice_of(device(1)), slice_of(device(1), node="n2")])
    first, second = slice_gpus.nodes(seen)
    assert first.problem == "there is no such Node any more" and not second.ready


def test_who_only_looks_is_listed_and_leaves_it_free() -> None:
    name = "0000-01-00-0-0x56c0"
    looking = holding("monitor", name, adminAccess=True)
    of_1_31 = holding("older", name)
    of_1_31["spec"]["devices"]["requests"][0]["exactly"]["adminAccess"] = True
    [here] = slice_gpus.nodes(cluster(slices=[slice_of(device(1))], claims=[looking, of_1_31]))
    [seen] = here.cards[0].devices
    assert [holder.admin for holder in seen.holders] == [True, True]
    assert gpus.free(here.cards[0], seen)
