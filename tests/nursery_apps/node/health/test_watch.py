"""From what the kernel shows of a GPU to what the cluster is told, and back again: one part, in virtual time, on a simulated machine."""

from __future__ import annotations

import errno

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dra.claims import Stage
from dra.health.health_settings import Health
from dra.health.told import Level
from dra.health.verdict import Verdict
from dra.kube.claims import Consumer
from dra.names import Bdf, ClaimUid, PoolName
from dra.pool import Effect
from dra.records import Grant, Record
from dra.sim_kernel import requests
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.node.desk import Verb
from nursery_apps.node.health import monitor
from tests.fakes.claim_node import blocked
from tests.fakes.health_bench import HealthBench

CARD, OTHER = Bdf("0000:18:00.0"), Bdf("0000:3a:00.0")
DAY = 86400.0


def claim(bench: HealthBench, bdf: Bdf = CARD) -> Record:
    gpu = bench.inventory.value.by_bdf()[bdf]
    grant = Grant(requests=("gpu",), pool=PoolName("n"), device=gpu.name, bdf=bdf)
    return Record(uid=ClaimUid("uid"), namespace="ns", name="claim", stage=Stage.GRANTED, grants=(grant,))


async def test_gpus_that_are_well_are_told_of_as_such(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        gpus = bench.inventory.value.gpus
        assert {health.level for health in bench.watch.told.value.values()} == {Level.OK}
        assert bench.watch.told.value.keys() == {gpu.name for gpu in gpus}
        assert all(bench.watch.opinion.value.healthy(gpu) and not bench.watch.opinion.value.taints(gpu) for gpu in gpus)
        await trio.sleep(60)
        assert bench.heard.said == []


async def test_a_hot_gpu_is_held_to_be_ill_after_a_while_and_well_after_a_quiet_one(autojump_clock: MockClock) -> None:
    async with HealthBench(quiet="2m").running() as bench:
        bench.kernel.show(requests.Heat(CARD, 135))
        took = await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        assert 10 <= took <= 10 + 2 * 5, "held down, and looked at every 5 s"
        gpu = bench.inventory.value.by_bdf()[CARD]
        await trio.sleep(0.01)  # another task passes it on, and may have its turn later
        assert [(taint.key, taint.effect) for taint in bench.watch.opinion.value.taints(gpu)] == [
            ("gpu.intel.com/temperature", Effect.NO_EXECUTE)
        ]
        assert "135" in bench.watch.told.value[gpu.name].text
        bench.kernel.show(requests.Heat(CARD, 50))
        took = await bench.until(lambda: bench.level(CARD) is Level.OK)
        assert 120 <= took <= 120 + 5
        assert bench.heard.reasons() == ["GPUFailed", "GPUHealthy"]


async def test_what_the_kernel_says_by_event_counts_within_a_moment(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        bench.kernel.wedge(CARD)
        assert await bench.until(lambda: bench.level(CARD) is Level.FAILED) < 0.1
        bench.kernel.pcie_error(OTHER, recovered=False)
        assert await bench.until(lambda: bench.level(OTHER) is Level.FAILED) < 0.1


@pytest.mark.parametrize(
    ("symptom", "condition"),
    [
        (requests.Aer(CARD, "fatal"), "pcie"),
        (requests.Narrow(CARD, 4), "link"),
        (requests.OffBus(CARD), "off-bus"),
        (requests.Heat(CARD, 104, "pkg"), "temperature"),
        (requests.Throttle(CARD, "thermal"), "throttled"),
        (requests.GpuHealth(CARD, "critical"), "errors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_symptom_of_a_card_is_seen(symptom: requests.Symptom, condition: str, autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        await trio.sleep(6)  # what grows is seen from the second reading on
        bench.kernel.show(symptom)
        await bench.until(lambda: any(each.condition == condition for each in bench.verdict(CARD).ailments), seconds=30)
        assert bench.level(OTHER) is Level.OK


async def test_a_card_whose_files_hang_is_unknown_and_holds_up_no_other(autojump_clock: MockClock) -> None:
    bench = HealthBench()
    free = blocked(bench.kernel, f"*/{CARD}/*temp*", "read")
    async with bench.running():
        await bench.until(lambda: bench.level(CARD) is Level.UNKNOWN)
        assert bench.watch.files.hanging == 1
        bench.kernel.show(requests.Heat(OTHER, 140))
        await bench.until(lambda: bench.level(OTHER) is Level.FAILED, seconds=30)
        assert bench.watch.files.hanging == 1, "and is not read again meanwhile"
        free.set()
        await bench.until(lambda: bench.level(CARD) is Level.OK)
        assert bench.watch.files.hanging == 0
        assert bench.heard.reasons() == ["GPUUnknown", "GPUFailed", "GPUHealthy"]


async def test_who_uses_the_gpu_is_told(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        record = claim(bench)
        bench.hold(record)
        pod = Consumer(resource="pods", name="pod", uid="pod-uid")
        bench.reporter.outcome(Verb.PREPARE, ClaimRef(record.uid, "ns", "claim"), None, 0.1, (pod,))
        bench.reporter.outcome(Verb.SETTLE, ClaimRef(record.uid, "ns", "claim"), None, 0.1, ())  # the reconciler's, every few minutes
        bench.kernel.wedge(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        assert bench.heard.said[-3:] == [(kind, "GPUFailed", bench.heard.said[-1][2]) for kind in ("Node", "ResourceClaim", "Pod")]
        assert "wedged" in bench.heard.said[-1][2]


async def test_a_restart_in_the_middle_forgets_no_quiet_period(autojump_clock: MockClock) -> None:
    disk: dict[str, bytes] = {}
    bench = HealthBench(disk=disk)
    async with bench.running():
        bench.kernel.wedge(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        bench.kernel.unwedge(CARD)
        await bench.until(lambda: bench.verdict(CARD).ailments[0].healing)
        await trio.sleep(20)
    async with HealthBench(disk=disk).running() as later:
        assert later.level(CARD) is Level.FAILED and later.heard.said != []
        assert 39 <= await later.until(lambda: later.level(CARD) is Level.OK) <= 41


@pytest.mark.parametrize("memory", [b"\x00 half a", b'{"version":1,"cases":{"%s":{"temperature":%s}}}'], ids=["illegible", "absurd"])
async def test_no_memory_keeps_the_plugin_from_its_work(memory: bytes, autojump_clock: MockClock) -> None:
    hold = b'{"up":-1e18,"held":-1e18,"flaps":-5}'
    disk = {monitor.FILE: memory % (CARD.encode(), b'{"degraded":%s,"failed":%s}' % (hold, hold)) if b"%s" in memory else memory}
    bench = HealthBench(disk=disk)
    bench.state.fail = lambda operation, _name: errno.ENOSPC if operation == "replace" else None
    async with bench.running():
        await bench.until(lambda: bench.level(CARD) is Level.OK)
        assert bench.watch.told.value


async def test_an_illegible_memory_is_set_aside_and_costs_nothing_else(autojump_clock: MockClock) -> None:
    disk = {monitor.FILE: b"\x00 half a"}
    async with HealthBench(disk=disk).running() as bench:
        assert bench.level(CARD) is Level.OK
        assert disk[monitor.PARKED] == b"\x00 half a"


async def test_settings_count_at_once(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        bench.kernel.wedge(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        gpu = bench.inventory.value.by_bdf()[CARD]

        async def having(**health: object) -> None:
            bench.watch.settings.set(msgspec.convert(health, Health))
            await trio.sleep(1)

        await having(effects={"failed": "NoSchedule"})
        assert [taint.effect for taint in bench.watch.opinion.value.taints(gpu)] == [Effect.NO_SCHEDULE]
        await having(effects={"failed": "none"})
        assert bench.watch.opinion.value.taints(gpu) == () and bench.watch.opinion.value.healthy(gpu) is False
        await having(ignore=["wedged"])
        assert bench.level(CARD) is Level.OK
        await having(enabled=False)
        assert bench.watch.opinion.value.of(gpu) is None and bench.watch.told.value == {}


async def test_one_bad_measurement_is_none(autojump_clock: MockClock) -> None:
    async with HealthBench(period="30s").running() as bench:
        await trio.sleep(29)
        bench.kernel.show(requests.Heat(CARD, 135))
        await trio.sleep(2)
        bench.kernel.show(requests.Heat(CARD, 50))
        await trio.sleep(600)
        assert bench.heard.said == []
        bench.kernel.show(requests.Heat(CARD, 135))
        assert await bench.until(lambda: bench.level(CARD) is Level.FAILED) <= 30 + 10


async def test_what_is_heard_while_watching_is_switched_off_counts_when_it_is_on(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        bench.kernel.pcie_error(CARD, recovered=False)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        bench.watch.settings.set(Health(enabled=False))
        await trio.sleep(1)
        bench.kernel.unbind(CARD)
        bench.kernel.bind(CARD, "xe")
        bench.kernel.pcie_error(OTHER, recovered=False)
        await trio.sleep(1)
        bench.watch.settings.set(Health())
        await bench.until(lambda: OTHER in bench.watch.monitor.verdicts.value and bench.level(OTHER) is Level.FAILED, seconds=1)
        await bench.until(lambda: bench.level(CARD) is Level.OK)


async def test_a_card_whose_files_hang_stays_unknown_when_watching_is_switched_off_and_on(autojump_clock: MockClock) -> None:
    bench = HealthBench()
    free = blocked(bench.kernel, f"*/{CARD}/*temp*", "read")
    async with bench.running():
        await bench.until(lambda: bench.level(CARD) is Level.UNKNOWN)
        bench.watch.settings.set(Health(enabled=False))
        await trio.sleep(1)
        bench.watch.settings.set(Health())
        await trio.sleep(600)
        assert bench.level(CARD) is Level.UNKNOWN
        free.set()


async def test_what_is_pending_when_watching_is_switched_off_passes_in_quiet(autojump_clock: MockClock) -> None:
    """It was due again and again, and virtual time stood still."""
    async with HealthBench().running() as bench:
        bench.kernel.wedge(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        bench.watch.settings.set(Health(enabled=False))
        bench.kernel.unwedge(CARD)
        await trio.sleep(DAY)
        bench.watch.settings.set(Health())
        await bench.until(lambda: bench.watch.monitor.verdicts.value.get(CARD) == Verdict(Level.OK), seconds=60)


async def test_a_card_that_goes_and_comes_back_while_its_files_hang_is_unknown_until_they_do_not(autojump_clock: MockClock) -> None:
    bench = HealthBench()
    free = blocked(bench.kernel, f"*/{CARD}/*temp*", "read")
    async with bench.running():
        await bench.until(lambda: bench.level(CARD) is Level.UNKNOWN)
        bench.kernel.unplug(CARD)
        await bench.until(lambda: CARD not in bench.watch.monitor.verdicts.value)
        await trio.sleep(60)
        bench.kernel.plug(CARD)
        await bench.until(lambda: CARD in bench.watch.monitor.verdicts.value and bench.level(CARD) is Level.UNKNOWN)
        free.set()
        await bench.until(lambda: bench.level(CARD) is Level.OK)


async def test_a_gpu_that_is_unplugged_and_comes_back_is_known_again(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        record = claim(bench)
        bench.hold(record)
        bench.kernel.unplug(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.FAILED)
        assert [each.condition for each in bench.verdict(CARD).ailments] == ["absent"]
        bench.kernel.plug(CARD)
        await bench.until(lambda: bench.level(CARD) is Level.OK)


async def test_metrics_say_how_gpus_are_and_what_they_measure(autojump_clock: MockClock) -> None:
    async with HealthBench().running() as bench:
        record = claim(bench)
        bench.hold(record)
        pod = Consumer(resource="pods", name="worker", uid="pod-uid")
        bench.reporter.outcome(Verb.PREPARE, ClaimRef(record.uid, "ns", "claim"), None, 0.1, (pod,))
        bench.kernel.show(requests.Heat(CARD, 61))
        bench.kernel.wedge(OTHER)
        await trio.sleep(11)
        bench.watch.expose()
        text = bench.metrics.exposition().decode()
        assert f'intel_gpu_dra_gpu_health{{bdf="{CARD}",level="ok"}} 1.0' in text
        assert f'intel_gpu_dra_gpu_health{{bdf="{OTHER}",level="failed"}} 1.0' in text
        assert f'intel_gpu_dra_gpu_health_changes_total{{bdf="{OTHER}",level="failed"}} 1.0' in text
        assert f'intel_gpu_dra_gpu_health_changes_total{{bdf="{CARD}",level="failed"}} 0.0' in text
        assert f'intel_gpu_dra_gpu_ailments{{bdf="{OTHER}",condition="wedged",state="failed"}} 1.0' in text
        [line] = [line for line in text.splitlines() if "temperature_celsius" in line and CARD in line and "pkg" in line]
        assert 'claim_name="claim"' in line and 'pod="worker"' in line and line.endswith(" 61.0")
        bench.kernel.unplug(CARD)
        await trio.sleep(11)
        bench.watch.expose()
        assert "temperature_celsius{" not in "".join(line for line in bench.metrics.exposition().decode().splitlines() if CARD in line)
