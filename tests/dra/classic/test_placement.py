from __future__ import annotations

import pytest

from dra.classic import placement, stock
from dra.classic.handle import Handle, Part, profiles_of
from dra.classic.parameters import Demand
from dra.classic.placement import Policy, Unfit
from tests.dra.classic.nodes import card, holds, state, uid, vf, want

NONE = Policy()
TWO = state(card(1), card(2))


def placed(at: object, *demands: Demand, policy: Policy = NONE, held: tuple[Handle, ...] = ()) -> list[list[str]] | str:
    """What each demand gets: `1` for a card, `1#2` for a VF of it, `1.3` for a VF that was there; or why nothing."""
    found = placement.place(stock.of_node(at, held), demands, policy, "n1")  # type: ignore[arg-type]
    if isinstance(found, Unfit):
        return found.why
    return [[said for part in handle.parts for said in _said(part)] for handle in found]


def _said(part: Part) -> list[str]:
    slot, function = int(part.uid[5:7], 16), part.uid[11]
    if part.parent:
        return [f"{slot}.{function}"]
    return [f"{slot}#{number}" for number in part.vfs] or [str(slot)]


def test_a_gpu_is_taken_whole() -> None:
    assert placed(TWO, want()) == [["1"]]
    assert placed(TWO, want(), held=(holds(Part(uid=uid(1), memory=16384, millicores=1000)),)) == [["2"]]


def test_two_claims_of_a_pod_do_not_fit_a_node_with_one_gpu() -> None:
    assert placed(state(card(1)), want(), want()) == "1 of a whole GPU wanted, beside 1 other claims of the pod; 1 of 1 fit"


def test_the_devices_of_a_claim_are_different_ones() -> None:
    assert placed(TWO, want(count=2)) == [["1", "2"]]
    assert placed(TWO, want(count=2, shared=True, memory=100)) == [["1", "2"]]
    assert isinstance(placed(TWO, want(count=3, shared=True)), str)


def test_a_claim_that_fits_only_the_large_card_gets_it_before_one_that_fits_both() -> None:
    at = state(card(1), card(2, memory=4096))
    assert placed(at, want(), want(memory=8000)) == [["2"], ["1"]]


def test_where_the_first_way_fails_another_is_tried() -> None:
    """Selectors that overlap: taking the first card for the first claim would leave nothing for the second."""
    at = state(card(1, name="Flex 170"), card(2, name="Arc A770"))
    assert placed(at, want(name="*"), want(name="flex*")) == [["2"], ["1"]]


def test_shares_of_a_gpu_add_up_to_it_and_no_further() -> None:
    half = want(shared=True, memory=8192, millicores=500)
    held = (holds(Part(uid=uid(1), memory=8192, millicores=500), shared=True),)
    assert placed(state(card(1)), half, held=held) == [["1"]]
    assert isinstance(placed(state(card(1)), half, half, held=held), str)
    assert isinstance(placed(state(card(1)), want(shared=True, memory=8193), held=held), str)
    assert isinstance(placed(state(card(1)), want(shared=True, millicores=501), held=held), str)


def test_an_exclusive_claim_does_not_get_a_gpu_that_is_shared_nor_a_sharing_one_a_gpu_that_is_exclusive() -> None:
    assert isinstance(placed(state(card(1)), want(), held=(holds(Part(uid=uid(1), memory=8, millicores=1), shared=True),)), str)
    whole = holds(Part(uid=uid(1), memory=16384, millicores=1000))
    assert isinstance(placed(state(card(1)), want(shared=True, memory=8), held=(whole,)), str)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy("none"), "1"),
        (Policy("balanced"), "3"),
        (Policy("packed"), "2"),
        (Policy("packed", "millicores"), "1"),
        (Policy("balanced", "millicores"), "3"),
    ],
)
def test_policies_choose_among_gpus_that_fit(policy: Policy, expected: str) -> None:
    held = (
        holds(Part(uid=uid(1), memory=1000, millicores=900), shared=True),
        holds(Part(uid=uid(2), memory=9000, millicores=100), shared=True),
    )
    assert placed(state(card(1), card(2), card(3)), want(shared=True, memory=100, millicores=50), policy=policy, held=held) == [[expected]]


def test_a_vf_comes_from_the_smallest_that_will_do() -> None:
    layout = (("flex170_m2", 1), ("flex170_m5", 1), ("flex170_m8", 2))
    held = (holds(Part(uid=uid(1), vfs=(4,), layout=layout)),)
    assert placed(state(card(1)), want("vf", memory=1500), held=held) == [["1#3"]]
    assert placed(state(card(1)), want("vf", memory=3000), held=held) == [["1#2"]]
    assert placed(state(card(1)), want("vf", memory=4000), held=held) == [["1#1"]]


def test_a_card_is_cut_only_where_no_vf_is_free_and_all_claims_agree_on_its_layout() -> None:
    held = (holds(Part(uid=uid(1), vfs=(1,), layout=(("flex170_m4", 4),))),)
    assert placed(TWO, want("vf", memory=3500, count=3), held=held) == [["1#2", "1#3", "1#4"]]
    assert placed(TWO, want("vf", memory=3500, count=4), held=held) == [["1#2", "1#3", "1#4", "2#1"]]
    found = placement.place(stock.of_node(TWO, held), [want("vf", memory=3500, count=3)], Policy(), "n1")
    assert not isinstance(found, Unfit) and found[0].parts[0].layout == (("flex170_m4", 4),)


def test_different_vfs_of_one_pod_share_a_card_that_is_cut_for_both() -> None:
    found = placement.place(stock.of_node(TWO, ()), [want("vf", memory=3000), want("vf", memory=6000)], Policy(), "n1")
    assert not isinstance(found, Unfit)
    small, large = found[0].parts[0], found[1].parts[0]
    assert small.uid == large.uid and small.layout == large.layout and small.vfs != large.vfs
    profiles = profiles_of(small.layout)
    assert profiles[large.vfs[0] - 1] == "flex170_m2" and len(profiles) > 2, "spare VFs fill the rest"


def test_a_card_in_use_is_never_cut_and_a_cut_one_never_given_whole() -> None:
    """The original planned VFs on GPUs that shared claims used (S-7)."""
    used = (holds(Part(uid=uid(1), memory=8, millicores=1), shared=True),)
    assert isinstance(placed(state(card(1)), want("vf"), held=used), str)
    cut = (holds(Part(uid=uid(1), vfs=(1,), layout=(("flex170_m8", 8),))),)
    assert isinstance(placed(state(card(1)), want(), held=cut), str)
    assert isinstance(placed(state(card(1)), want(shared=True), held=cut), str)


def test_another_card_is_cut_if_the_pod_needs_the_first_one_whole() -> None:
    at = state(card(1, name="Flex 170"), card(2, name="other"))
    assert placed(at, want("vf", memory=1000), want(name="flex*")) == [["2#1"], ["1"]]


def test_any_takes_vfs_before_gpus_and_fills_up_with_gpus() -> None:
    """The original demanded twice as many as were asked for (S-13)."""
    at = state(card(1, maxvfs=0), card(2, maxvfs=0), card(3), vf(3, 0), vf(3, 1))
    assert placed(at, want("any", count=2)) == [["3.1", "3.2"]]
    assert placed(at, want("any", count=4)) == [["3.1", "3.2", "1", "2"]]
    assert isinstance(placed(at, want("any", count=5)), str)


def test_a_card_is_cut_for_vfs_and_for_who_takes_either_if_spare_ones_are_too_few() -> None:
    wanted = [want(shared=True, memory=6000), want("vf", memory=3000), want("vf", memory=3000), want("any"), want("any", count=3)]
    assert not isinstance(placed(TWO, *wanted), str)


def test_a_tainted_card_and_its_vfs_are_not_given() -> None:
    assert placed(state(card(1), card(2), tainted=[uid(1)]), want()) == [["2"]]
    assert isinstance(placed(state(card(1), vf(1, 0), tainted=[uid(1)]), want("vf")), str)
    held = (holds(Part(uid=uid(1), vfs=(1,), layout=(("flex170_m8", 8),))),)
    assert isinstance(placed(state(card(1), tainted=[uid(1)]), want("vf"), held=held), str)


def test_an_integrated_gpu_without_memory_of_its_own_takes_claims_that_ask_for_none() -> None:
    at = state(card(1, memory=0, maxvfs=0, model="0x4626"))
    assert placed(at, want()) == [["1"]]
    assert isinstance(placed(at, want(memory=8)), str)
    assert isinstance(placed(at, want("vf")), str)


def test_a_monitor_is_no_burden_and_goes_with_others() -> None:
    assert placed(state(card(1)), want(monitor=True), want()) == [[], ["1"]]
    assert placed(state(), want(monitor=True)) == [[]]


def test_a_device_that_claims_hold_and_the_node_no_longer_has_disturbs_nobody() -> None:
    """The original's controller died of it, again and again (S-1)."""
    held = (holds(Part(uid=uid(9), vfs=(1,), layout=(("flex170_m8", 8),))), holds(Part(uid=uid(8, 1), parent=uid(8), index=1)))
    assert placed(state(card(1)), want(), held=held) == [["1"]]


def test_the_stock_stays_as_it_is() -> None:
    before = stock.of_node(TWO, ())
    placement.place(before, [want(), want("vf")], Policy(), "n1")
    assert before == stock.of_node(TWO, ())


def test_a_search_without_an_end_is_given_up() -> None:
    at = state(*(card(number, memory=1000 + number) for number in range(1, 25)))
    assert isinstance(placed(at, *(want(count=3, memory=900, name=f"{'?' * length}*") for length in range(1, 10))), str)
