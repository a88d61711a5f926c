"""What a scraper reads of the GPUs' own figures."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dra.health.telemetry import Sample
from dra.names import Bdf
from nursery_apps.metrics import Registry
from nursery_apps.node.health.telemetry_metrics import Holder, TelemetryMetrics, Told

ONE, OTHER = Bdf("0000:18:00.0"), Bdf("0000:3a:00.0")


def scrape(registry: Registry) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(registry.exposition().decode()):
        for sample in family.samples:
            if sample.name.startswith("intel_gpu_dra_gpu_"):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name.removeprefix('intel_gpu_dra_gpu_')}{{{labels}}}"] = sample.value
    return found


def test_series_are_those_of_the_last_time() -> None:
    registry = Registry()
    metrics = TelemetryMetrics(registry, by_claim=False)
    hot, energy = Sample("temperature_celsius", ("pkg",), 60.5), Sample("energy_joules", ("card",), 1000.0)
    metrics.tell([Told(ONE, "Arc Pro B60", [hot, energy]), Told(OTHER, "Arc Pro B60", [hot])])
    assert scrape(registry) == {
        f"temperature_celsius{{bdf={ONE},model=Arc Pro B60,sensor=pkg}}": 60.5,
        f"temperature_celsius{{bdf={OTHER},model=Arc Pro B60,sensor=pkg}}": 60.5,
        f"energy_joules_total{{bdf={ONE},model=Arc Pro B60,part=card}}": 1000.0,
    }
    metrics.tell([Told(ONE, "Arc Pro B60", [Sample("energy_joules", ("card",), 1200.0)])])
    assert scrape(registry) == {f"energy_joules_total{{bdf={ONE},model=Arc Pro B60,part=card}}": 1200.0}
    metrics.tell([])
    assert scrape(registry) == {}


def test_the_claim_that_holds_a_gpu_is_named_when_asked_for() -> None:
    registry = Registry()
    metrics = TelemetryMetrics(registry, by_claim=True)
    used = Sample("memory_used_bytes", (), 4096.0)
    metrics.tell([Told(ONE, "Max 1550", [used], Holder("ns", "claim", "pod-1")), Told(OTHER, "Max 1550", [used])])
    assert scrape(registry) == {
        f"memory_used_bytes{{bdf={ONE},claim_name=claim,claim_namespace=ns,model=Max 1550,pod=pod-1}}": 4096.0,
        f"memory_used_bytes{{bdf={OTHER},claim_name=,claim_namespace=,model=Max 1550,pod=}}": 4096.0,
    }
