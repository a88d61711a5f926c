from __future__ import annotations

from dra.classic.handle import Handle, Part
from dra.classic.ledger import Ask, Ledger
from dra.classic.placement import Policy, Unfit
from dra.names import ClaimUid
from tests.dra.classic.nodes import card, holds, state, uid, want


class Nodes:
    def __init__(self, *names: str, cards: int = 1) -> None:
        self.better: list[str] = []
        self.ledger = Ledger(Policy(), on_better=self.better.append)
        for name in names:
            self.ledger.set_state(name, state(*(card(number) for number in range(1, cards + 1)), name=name))
            self.ledger.set_alive(name, True)
        self.better.clear()


def ask(name: str, **more: object) -> Ask:
    return Ask(ClaimUid(name), want(**more))  # type: ignore[arg-type]


def decided(found: dict[ClaimUid, Handle] | Unfit) -> dict[ClaimUid, Handle]:
    assert not isinstance(found, Unfit), found.why
    return found


def test_a_decision_counts_before_it_is_written_and_is_the_same_when_asked_again() -> None:
    ledger = Nodes("n1", cards=2).ledger
    first = decided(ledger.decide("n1", [ask("a")]))
    assert decided(ledger.decide("n1", [ask("a")])) == first
    assert decided(ledger.decide("n1", [ask("b")])) != first
    assert ledger.why_unsuitable("n1", [ask("c")]) is not None
    assert ledger.why_unsuitable("n1", [ask("a")]) is None, "who has a device there is not in its own way"


def test_a_decision_for_another_node_lets_the_first_go() -> None:
    nodes = Nodes("n1", "n2")
    decided(nodes.ledger.decide("n1", [ask("a")]))
    assert nodes.better == []
    decided(nodes.ledger.decide("n2", [ask("a")]))
    assert nodes.better == ["n1"] and nodes.ledger.why_unsuitable("n1", [ask("b")]) is None


def test_what_is_let_go_makes_its_node_better_and_only_that() -> None:
    nodes = Nodes("n1", "n2")
    nodes.ledger.hold(ClaimUid("a"), "n1", holds(Part(uid=uid(1), memory=16384, millicores=1000)), written=True)
    assert nodes.ledger.why_unsuitable("n1", [ask("b")]) == "1 of a whole GPU wanted; 0 of 1 fit"
    nodes.ledger.release(ClaimUid("a"))
    nodes.ledger.release(ClaimUid("a"))
    assert nodes.better == ["n1"] and nodes.ledger.why_unsuitable("n1", [ask("b")]) is None


def test_a_node_is_ready_with_a_state_that_says_so_and_a_plugin_that_lives() -> None:
    ledger = Nodes("n1").ledger
    assert ledger.why_not_ready("n1") is None
    assert ledger.why_not_ready("nowhere") == "no GpuAllocationState: no node plugin of this driver"
    ledger.set_alive("n1", False)
    assert ledger.why_not_ready("n1") == "its node plugin does not renew its Lease"
    ledger.set_alive("n1", True)
    ledger.set_state("n1", state(card(1), status="NotReady"))
    assert ledger.why_not_ready("n1") == "its GpuAllocationState is NotReady"
    ledger.set_state("n1", None)
    assert isinstance(ledger.decide("n1", [ask("a")]), Unfit)


def test_a_claim_that_nobody_understands_blocks_its_node_until_it_goes() -> None:
    nodes = Nodes("n1")
    nodes.ledger.block(ClaimUid("x"), "n1", "a riddle")
    assert nodes.ledger.why_unsuitable("n1", [ask("a")]) == "a riddle"
    nodes.ledger.release(ClaimUid("x"))
    assert nodes.ledger.why_not_ready("n1") is None and nodes.better == ["n1"]


def test_what_was_found_out_of_a_node_is_forgotten_when_it_changes() -> None:
    ledger = Nodes("n1").ledger
    assert ledger.why_unsuitable("n1", [ask("a", count=2)]) is not None
    ledger.set_state("n1", state(card(1), card(2)))
    assert ledger.why_unsuitable("n1", [ask("a", count=2)]) is None


def test_claims_decided_one_by_one_are_decided_anew_if_they_stand_in_each_others_way() -> None:
    """A write failed between two rounds, and the pod got another claim meanwhile."""
    ledger = Nodes().ledger
    ledger.set_state("n1", state(card(1), card(2, memory=4096)))
    ledger.set_alive("n1", True)
    decided(ledger.decide("n1", [ask("small")]))
    both = decided(ledger.decide("n1", [ask("small"), ask("large", memory=8000)]))
    assert [handle.parts[0].uid for handle in both.values()] == [uid(2), uid(1)]


def test_another_policy_counts_from_the_next_decision_on() -> None:
    ledger = Nodes("n1", cards=3).ledger
    ledger.hold(ClaimUid("a"), "n1", holds(Part(uid=uid(1), memory=100, millicores=1), shared=True), written=True)
    ledger.set_policy(Policy("balanced"))
    found = decided(ledger.decide("n1", [ask("b", shared=True, memory=10)]))
    assert found[ClaimUid("b")].parts[0].uid == uid(2)
