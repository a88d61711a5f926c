"""What a scraper reads, after what happened on the node."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dra.claims import Stage
from dra.devices import Gpu, Inventory, State
from dra.errors import ClaimRefused
from dra.ledger import Ledger, Parked
from dra.names import Bdf, ClaimUid, PoolName
from dra.records import Grant, Kept, Record
from nursery_apps.metrics import Metrics

QUIET: dict[str, Any] = {
    "inventory": Inventory(),
    "ledger": Ledger(),
    "devices": 0,
    "slices": 0,
    "in_sync": True,
    "withdrawn": 0,
    "not_published": 0,
    "dropped_fields": 0,
    "slice_writes": 0,
    "faulty_cards": 0,
    "stuck_cards": 0,
    "registered": True,
}


def scrape(metrics: Metrics, **changes: Any) -> dict[str, float]:
    """`name{label=value}` without our prefix -> value."""
    text = metrics.snapshot(**QUIET | changes).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("intel_gpu_dra_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def gpu(slot: int, state: State = State.HEALTHY) -> Gpu:
    return Gpu(bdf=Bdf(f"0000:{slot:02x}:00.0"), device="0x56c0", state=state)


def record(uid: str, card: Gpu) -> Kept:
    grant = Grant(requests=(), pool=PoolName("n"), device=card.name, bdf=card.bdf)
    return Kept(Record(uid=ClaimUid(uid), namespace="ns", name=uid, stage=Stage.GRANTED, grants=(grant,)))


def test_operations_by_verb_and_reason_with_their_time() -> None:
    metrics = Metrics()
    metrics.operation("prepare", None, 0.2)
    metrics.operation("prepare", ClaimRefused("no", reason="InvalidConfig"), 0.1)
    metrics.step("journal", 0.003)
    found = scrape(metrics)
    assert found["claim_operations_total{outcome=ok,verb=prepare}"] == 1
    assert found["claim_operations_total{outcome=InvalidConfig,verb=prepare}"] == 1
    assert found["claim_operation_seconds_count{verb=prepare}"] == 2
    assert found["claim_step_seconds_bucket{le=0.0025,step=journal}"] == 0
    assert found["claim_step_seconds_bucket{le=0.005,step=journal}"] == 1


def test_series_of_known_outcomes_start_at_nought() -> None:
    found = scrape(Metrics())
    assert found["claim_operations_total{outcome=ok,verb=unprepare}"] == 0
    assert found["reloads_total{result=invalid}"] == 0
    assert found["findings_total{reason=OrphanedClaim}"] == 0


def test_devices_and_claims_are_those_of_now() -> None:
    metrics = Metrics()
    good, bad = gpu(3), gpu(4, State.WEDGED)
    ledger = Ledger({ClaimUid("c"): record("c", good)}, (Parked(b"", "torn", devices=(bad.name,)),))
    before = scrape(metrics, inventory=Inventory((good, bad)), ledger=ledger)
    assert (before["devices{state=healthy}"], before["devices{state=wedged}"], before["devices_in_use"]) == (1, 1, 2)
    assert (before["claims{stage=granted}"], before["claims{stage=parked}"]) == (1, 1)
    after = scrape(metrics, inventory=Inventory((good,)))
    assert "devices{state=wedged}" not in after
    assert not any(name.startswith("claims{") for name in after)


def test_totals_kept_elsewhere_are_counters() -> None:
    metrics = Metrics()
    assert scrape(metrics, slice_writes=3)["slice_writes_total"] == 3
    metrics.state(ready={}, behind=False, events=1, events_dropped=2)
    found = scrape(metrics, slice_writes=5)
    assert (found["slice_writes_total"], found["events_written_total"], found["events_dropped_total"]) == (5, 1, 2)


def test_journal_scans_findings_and_reloads() -> None:
    metrics = Metrics()
    metrics.commit(3, 900, 0.002)
    metrics.scan(0.04, 1)
    metrics.wedged()
    metrics.finding("OrphanedFile")
    metrics.reload("applied")
    found = scrape(metrics)
    assert (found["journal_commits_total"], found["journal_decisions_total"], found["journal_bytes_total"]) == (1, 3, 900)
    assert (found["inventory_scan_seconds_count"], found["hung_scans"], found["wedged_total"]) == (1, 1, 1)
    assert (found["findings_total{reason=OrphanedFile}"], found["reloads_total{result=applied}"]) == (1, 1)


def test_a_settings_file_that_is_refused_stays_in_sight_until_it_is_mended() -> None:
    metrics = Metrics()
    seen = []
    for outcome in ("applied", "invalid", "unchanged", "refused", "partly"):
        metrics.reload(outcome)
        seen.append(scrape(metrics)["last_reload_successful"])
    assert (scrape(Metrics())["last_reload_successful"], seen) == (1, [1, 0, 1, 0, 1])


def test_what_readyz_looks_at_and_whether_the_api_server_is_heard() -> None:
    metrics = Metrics()
    metrics.state(ready={"inventory": None, "ResourceSlices": "forbidden"}, behind=True, events=0, events_dropped=0)
    found = scrape(metrics)
    assert (found["ready{check=inventory}"], found["ready{check=ResourceSlices}"], found["watches_behind"]) == (1, 0, 1)


def test_gpus_that_are_there_are_described() -> None:
    metrics = Metrics()
    there = scrape(metrics, inventory=Inventory((gpu(3),)))
    assert there["gpu_info{bdf=0000:03:00.0,driver=,kind=pf,model=,pci_id=0x56c0}"] == 1
    assert not any(name.startswith("gpu_info") for name in scrape(metrics))


def test_the_process_itself_is_measured() -> None:
    found = scrape(Metrics())
    assert found["process_resident_memory_bytes"] > 0
    assert found["process_open_fds"] > 0


def test_every_metric_is_described_as_it_is_exposed() -> None:
    metrics = Metrics()
    exposed = {(family.name, family.type) for family in text_string_to_metric_families(metrics.snapshot(**QUIET).decode())}
    ours = {(name, kind) for name, kind in exposed if not name.startswith("process_")}
    assert ours == {(one.name.removesuffix("_total"), one.type) for one in metrics.described}


def test_nothing_foreign_and_no_series_twice() -> None:
    text = Metrics().snapshot(**QUIET).decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert all(name.startswith(("intel_gpu_dra_", "process_")) for name in names)
    assert "_created" not in text
