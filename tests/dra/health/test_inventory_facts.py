"""Which states of a GPU are an illness, and which are as they should be."""

from __future__ import annotations

import pytest

from dra.devices import Gpu, Inventory, Kind, State
from dra.health import inventory_facts
from dra.ledger import Ledger
from dra.names import Bdf, ClaimUid, PoolName
from dra.records import Grant, Kept, Record

CARD, VF = Bdf("0000:18:00.0"), Bdf("0000:18:00.1")


def gpu(bdf: Bdf = CARD, state: State = State.HEALTHY, **more: object) -> Gpu:
    return Gpu(bdf=bdf, device="0xe211", state=state, why=f"is {state}", **more)  # type: ignore[arg-type]


def vf(state: State = State.HEALTHY) -> Gpu:
    return gpu(VF, state, kind=Kind.VF, parent=CARD, vf_index=1)


def held(gpu: Gpu, *, driver: str = "", admin: bool = False, layout: tuple[tuple[str, int], ...] = ()) -> Ledger:
    grant = Grant(
        requests=(), pool=PoolName("n"), device=gpu.name, bdf=gpu.bdf, parent=gpu.parent, driver=driver, admin=admin, layout=layout
    )
    return Ledger().apply([Kept(Record(uid=ClaimUid("c"), namespace="d", name="c", grants=(grant,)))])


@pytest.mark.parametrize(
    ("found", "ledger", "conditions"),
    [
        (gpu(), Ledger(), set()),
        (gpu(state=State.DIRTY), Ledger(), set()),
        (gpu(state=State.WEDGED), Ledger(), {"wedged"}),
        (gpu(state=State.SURVIVABILITY), Ledger(), {"survivability"}),
        (gpu(state=State.NO_DRIVER), Ledger(), {"no-driver"}),
        (gpu(state=State.NO_NODES), Ledger(), {"no-nodes"}),
        (gpu(state=State.PASSTHROUGH), Ledger(), set()),
        (gpu(state=State.NO_DRIVER), held(gpu(), driver="vfio-pci"), set()),
        (vf(State.NO_DRIVER), Ledger(), set()),
        (vf(State.NO_DRIVER), held(vf()), {"no-driver"}),
        (vf(State.WEDGED), Ledger(), {"wedged"}),
    ],
)
def test_states(found: Gpu, ledger: Ledger, conditions: set[str]) -> None:
    assert inventory_facts.facts(Inventory((found,)), ledger, ())[found.bdf].keys() == conditions


def test_the_reason_is_told_as_the_scan_found_it() -> None:
    assert inventory_facts.facts(Inventory((gpu(state=State.WEDGED),)), Ledger(), ())[CARD]["wedged"].text == "is wedged"


def test_what_a_claim_holds_and_is_gone_is_absent() -> None:
    [(bdf, facts)] = inventory_facts.facts(Inventory(), held(gpu()), ()).items()
    assert bdf == CARD and "claim c holds it" in facts["absent"].text


def test_nobody_misses_what_is_only_watched_or_is_yet_to_be_made() -> None:
    assert not inventory_facts.facts(Inventory(), held(gpu(), admin=True), ())
    assert not inventory_facts.facts(Inventory(), held(vf()), {VF})
    assert not inventory_facts.facts(Inventory(), held(vf(), layout=(("b60_n4", 4),)), ())
    assert inventory_facts.facts(Inventory(), held(vf()), ()).keys() == {VF}
