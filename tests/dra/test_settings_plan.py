"""What a changed file does: applied, left for a restart, or refused because a claim holds the GPU."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dra import settings_plan
from dra.devices import Gpu
from dra.names import Bdf, ClaimUid
from dra.settings import DeviceEvents, NodePluginConfiguration, Probes, Publish, Selector, selects
from dra.settings_plan import Verdict
from dra.sriov_settings import Cut, Sriov, VfCount

GPUS = [Gpu(bdf=Bdf(f"0000:{n:02x}:00.0"), device=d, model=m, integrated=i) for n, d, m, i in (
    (0, "0xa780", "UHD Graphics 770", True), (3, "0x56a0", "Arc A770", False), (4, "0x56a0", "Arc A770", False),
)]  # fmt: skip
NOW = NodePluginConfiguration()


def verdicts(wanted: NodePluginConfiguration, *used: Gpu) -> dict[str, Verdict]:
    made = settings_plan.plan(NOW, wanted, in_use={gpu.name: [ClaimUid("c")] for gpu in used}, gpus=GPUS)
    return {entry.field: entry.verdict for entry in made.entries}


def test_equal_settings_change_nothing_and_say_so() -> None:
    made = settings_plan.plan(NOW, NOW, in_use={}, gpus=GPUS)
    assert (made.entries, made.effective) == ((), NOW)
    assert settings_plan.render(made) == ["nothing changes"]


def test_what_can_change_live_is_applied() -> None:
    assert verdicts(NodePluginConfiguration(grace_period="5s")) == {"gracePeriod": Verdict.APPLY}


def test_what_is_read_once_waits_for_a_restart_and_is_not_in_force() -> None:
    wanted = NodePluginConfiguration(probes=Probes(port=1), device_events=DeviceEvents(source="udev", rescan_period="5s"))
    made = settings_plan.plan(NOW, wanted, in_use={}, gpus=GPUS)
    assert made.effective == NodePluginConfiguration(device_events=DeviceEvents(rescan_period="5s"))
    assert {entry.field for entry in made.entries if entry.verdict is Verdict.RESTART} == {"probes.port", "deviceEvents.source"}


def test_a_layout_is_shown_as_it_was_written() -> None:
    cut = Cut(select=Selector(pci_id="0x56c0"), vfs=(VfCount(profile="flex170_m8", count=2),))
    [shown] = settings_plan.render(settings_plan.plan(NOW, NodePluginConfiguration(sriov=Sriov(layouts=(cut,))), in_use={}, gpus=GPUS))
    assert shown.endswith('[{"select":{"pciId":"0x56c0"},"nodeLabels":{},"vfs":[{"profile":"flex170_m8","count":2}]}]')


def test_excluding_a_gpu_in_use_is_refused_with_its_holder_and_the_rest_is_applied() -> None:
    wanted = NodePluginConfiguration(grace_period="5s", publish=Publish(exclude=(Selector(bdf="0000:03:00.0"),)))
    made = settings_plan.plan(NOW, wanted, in_use={GPUS[1].name: [ClaimUid("c")]}, gpus=GPUS)
    assert made.effective == NodePluginConfiguration(grace_period="5s")
    assert settings_plan.render(made) == [
        'apply gracePeriod: "20s" -> "5s"',
        'refused publish.exclude: [] -> [{"bdf":"0000:03:00.0"}] (0000-03-00-0-0x56a0 is held by claim c)',
    ]


def test_excluding_a_free_gpu_is_applied() -> None:
    assert verdicts(NodePluginConfiguration(publish=Publish(exclude=(Selector(bdf="0000:04:00.0"),))), GPUS[1]) == {
        "publish.exclude": Verdict.APPLY
    }


selectors = st.lists(
    st.builds(
        Selector,
        bdf=st.none() | st.sampled_from([gpu.bdf for gpu in GPUS]),
        model=st.none() | st.sampled_from(["Arc A770", "UHD Graphics 770"]),
        integrated=st.none() | st.booleans(),
    ).filter(lambda selector: selector != Selector()),
    max_size=2,
).map(tuple)
publishes = st.builds(Publish, include=selectors, exclude=selectors)


@given(publishes, publishes, st.sets(st.sampled_from([gpu.name for gpu in GPUS])))
def test_no_plan_takes_away_a_gpu_that_is_in_use(current: Publish, wanted: Publish, used: set[str]) -> None:
    before = NodePluginConfiguration(publish=current)
    made = settings_plan.plan(
        before,
        NodePluginConfiguration(publish=wanted),
        in_use={name: [ClaimUid("c")] for name in used},
        gpus=GPUS,  # type: ignore[misc]
    )
    for gpu in GPUS:
        if gpu.name in used and selects(current, gpu):
            assert selects(made.effective.publish, gpu)
