"""What is offered, withheld and tainted."""

from __future__ import annotations

from dra.devices import Gpu, Inventory, Kind, State
from dra.ledger import Ledger
from dra.names import Bdf, ClaimUid, PoolName
from dra.offer import Offer, Sight, lent, offer
from dra.records import Grant, Kept, Record


def gpu(number: int, state: State = State.HEALTHY, **changes: object) -> Gpu:
    return Gpu(bdf=Bdf(f"0000:{number:02x}:00.0"), device="0x56c0", state=state, publishable=state is State.HEALTHY, **changes)  # type: ignore[arg-type]


def decide(*gpus: Gpu, remembered: tuple[Gpu, ...] = (), in_use: tuple[Gpu, ...] = (), excluded: tuple[Gpu, ...] = ()) -> Offer:
    names = {g.name for g in excluded}
    return offer(
        Sight(Inventory(gpus)),
        remembered={g.name: g for g in remembered},
        in_use={g.name for g in in_use},
        selected=lambda g: g.name not in names,
    )


def test_sound_gpus_are_offered_without_taints() -> None:
    assert decide(gpu(1), gpu(2)) == Offer((gpu(1), gpu(2)), {}, {})


def test_a_broken_gpu_is_withdrawn_and_the_reason_kept() -> None:
    assert decide(gpu(1, State.WEDGED), gpu(2)) == Offer((gpu(2),), {}, {gpu(1).name: "wedged"})


def test_a_gpu_that_breaks_in_use_evicts_its_pods() -> None:
    made = decide(gpu(1, State.WEDGED), in_use=(gpu(1),))
    assert [(t.key, t.effect) for t in made.taints[gpu(1).name]] == [("gpu.intel.com/wedged", "NoExecute")]


def test_a_gpu_unplugged_in_use_stays_with_a_taint_and_unused_it_goes() -> None:
    assert [t.key for t in decide(remembered=(gpu(1),), in_use=(gpu(1),)).taints[gpu(1).name]] == ["gpu.intel.com/absent"]
    assert decide(remembered=(gpu(1),)) == Offer((), {}, {})


def test_a_pf_whose_vfs_are_on_is_withdrawn_without_a_taint_even_in_use() -> None:
    pf = Gpu(bdf=Bdf("0000:18:00.0"), device="0xe211", vfs_now=1, publishable=False, why="PF with VFs enabled")
    vf = Gpu(bdf=Bdf("0000:18:00.1"), device="0xe211", kind=Kind.VF, parent=pf.bdf, vf_index=1)
    assert decide(pf, vf, in_use=(pf,)) == Offer((vf,), {}, {pf.name: "PF with VFs enabled"})


def test_what_the_settings_exclude_is_never_offered() -> None:
    assert decide(gpu(1), excluded=(gpu(1),)) == Offer((), {}, {gpu(1).name: "not selected by the settings"})


def test_a_gpu_that_a_claim_has_bound_to_vfio_is_as_it_should_be() -> None:
    card, away = gpu(1), gpu(1, State.PASSTHROUGH)
    grant = Grant(requests=("gpu",), pool=PoolName("n"), device=card.name, bdf=card.bdf, driver="vfio-pci")
    ledger = Ledger().apply([Kept(Record(uid=ClaimUid("vm"), namespace="d", name="vm", grants=(grant,)))])
    assert lent(ledger) == [card.name]
    made = offer(Sight(Inventory((away,))), remembered={card.name: card}, in_use={card.name}, lent=lent(ledger), selected=lambda g: True)
    assert made == Offer((card,), {}, {}), "published as it was and will be again"
