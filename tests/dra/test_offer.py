"""What is offered, withheld and tainted."""

from __future__ import annotations

import msgspec
import pytest

from dra.devices import Gpu, Inventory, Kind, State
from dra.health.facts import Severity
from dra.health.telling import Effects, Opinion
from dra.health.told import Level
from dra.health.verdict import Ailment, Verdict
from dra.ledger import Ledger
from dra.names import Bdf, ClaimUid, PoolName
from dra.offer import ALERTED, Offer, Sight, lent, offer
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


def test_an_alert_keeps_new_claims_from_a_card_and_its_vfs_and_lets_pods_stay() -> None:
    vf = gpu(2, kind=Kind.VF, parent=gpu(1).bdf)
    made = offer(
        Sight(Inventory((gpu(1), vf, gpu(3)))),
        remembered={},
        in_use={vf.name},
        alerted={gpu(1).name, gpu(9).name},
        selected=lambda _gpu: True,
    )
    assert [one.name for one in made.gpus] == [gpu(1).name, vf.name, gpu(3).name]
    assert made.taints == {gpu(1).name: (ALERTED,), vf.name: (ALERTED,)}
    assert (ALERTED.key, ALERTED.effect) == ("gpu.intel.com/alert", "NoSchedule")


def test_an_alert_about_a_broken_gpu_adds_to_its_taint() -> None:
    broken = gpu(1, State.WEDGED)
    made = offer(Sight(Inventory((broken,))), remembered={}, in_use={broken.name}, alerted={broken.name}, selected=lambda _gpu: True)
    assert [taint.key for taint in made.taints[broken.name]] == ["gpu.intel.com/wedged", "gpu.intel.com/alert"]


AILMENT = Ailment(condition="temperature", severity=Severity.FAILED, text="hot", since=0.0)


@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize("state", [State.HEALTHY, State.WEDGED])
def test_a_failed_gpu_is_never_offered_as_sound(state: State, in_use: bool) -> None:
    sick = gpu(1, state)
    opinion = Opinion({sick.bdf: Verdict(Level.FAILED, (AILMENT,))})
    made = offer(
        Sight(Inventory((sick,))), remembered={}, in_use={sick.name} if in_use else (), opinion=opinion, selected=lambda _gpu: True
    )
    assert sick.name in made.withheld or made.taints[sick.name]
    assert not made.healthy.get(sick.name, False)
    keys = [taint.key for taint in made.taints.get(sick.name, ())]
    assert len(keys) == len(set(keys)), "one taint for each condition, whoever noticed it"


def test_what_is_wrong_with_a_card_is_said_of_its_vfs_though_they_are_only_planned() -> None:
    card, vf = gpu(1), gpu(2, kind=Kind.VF, parent=gpu(1).bdf)
    opinion = Opinion({card.bdf: Verdict(Level.FAILED, (AILMENT,))})
    made = offer(Sight(Inventory((card, vf))), remembered={}, in_use=(), opinion=opinion, selected=lambda _gpu: True)
    assert made.taints.keys() == {card.name, vf.name} and made.healthy == {card.name: False, vf.name: False}


def test_effects_are_the_settings_also_for_what_cannot_be_used_at_all() -> None:
    sick = gpu(1, State.WEDGED)

    def taints(word: str) -> list[str]:
        opinion = Opinion({}, msgspec.convert({"failed": word}, Effects))
        made = offer(Sight(Inventory((sick,))), remembered={}, in_use={sick.name}, opinion=opinion, selected=lambda _gpu: True)
        return [taint.effect for taint in made.taints[sick.name]]

    assert [taints(word) for word in ("NoExecute", "NoSchedule", "none")] == [["NoExecute"], ["NoSchedule"], []]
