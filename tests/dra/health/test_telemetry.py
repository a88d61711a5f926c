"""What is plotted of a GPU."""

from __future__ import annotations

from dra import discovery
from dra.health import readings, telemetry
from dra.health.telemetry import METRICS
from dra.sim_kernel import requests
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60 = "0000:18:00.0"


def told(kernel: SimKernel, *symptoms: requests.Symptom, seconds: float = 10.0) -> dict[tuple[str, ...], float]:
    """(metric, labels…) -> value, of a card that showed these symptoms in the time between two readings."""
    gpu = discovery.scan(kernel).by_bdf()[B60]
    before = readings.read(kernel, gpu, 100.0)
    for symptom in symptoms:
        kernel.show(symptom)
    samples = telemetry.samples(before, readings.read(kernel, gpu, 100.0 + seconds))
    return {(sample.metric, *sample.labels): sample.value for sample in samples}


def test_a_card_that_works() -> None:
    kernel = machines.kernel("server-4x-b60")
    seen = told(
        kernel, requests.Heat(B60, 63.5, "pkg"), requests.Consume(B60, 1200), requests.Idle(B60, 7500, "gt0"), requests.Throttle(B60, "pl1")
    )
    assert (seen["temperature_celsius", "pkg"], seen["temperature_celsius", "vram"]) == (63.5, 52.0)
    assert seen["power_watts", "card"] == 120.0
    assert seen["energy_joules", "card"] == 123456.789012 + 1200
    assert (seen["busy_ratio", "gt0"], seen["busy_ratio", "gt1"]) == (0.25, 1.0)
    assert seen["frequency_hertz", "gt0"] == 0
    assert (seen["throttled", "pl1"], seen["throttled", "thermal"]) == (1.0, 0.0)
    assert (seen["fan_rpm", "fan1"], seen["pcie_errors", "fatal"]) == (1250, 0)


def test_errors_are_summed_by_what_they_mean() -> None:
    kernel = machines.kernel("server-8x-max1550")
    seen = told(
        kernel,
        requests.Aer(B60, "correctable", 5),
        requests.CountErrors(B60, "gt0/fatal_guc", 2),
        requests.CountErrors(B60, "gt1/fatal_fpu", 1),
        requests.CountErrors(B60, "gt0/sgunit_nonfatal", 4),
        requests.CountErrors(B60, "driver_object_migration", 9),
    )
    assert [seen["hardware_errors", word] for word in ("fatal", "nonfatal", "correctable")] == [3, 4, 0]
    assert seen["pcie_errors", "correctable"] == 5
    assert seen["memory_used_bytes",] == 33554432


def test_the_first_reading_has_neither_power_nor_busy_time() -> None:
    kernel = machines.kernel("server-4x-b60")
    now = readings.read(kernel, discovery.scan(kernel).gpus[0], 0.0)
    assert {"power_watts", "busy_ratio"}.isdisjoint({sample.metric for sample in telemetry.samples(None, now)})


def test_samples_fit_their_metrics() -> None:
    for name in machines.NAMES:
        kernel = machines.kernel(name)
        for gpu in discovery.scan(kernel).gpus:
            before, now = readings.read(kernel, gpu, 0.0), readings.read(kernel, gpu, 10.0)
            samples = telemetry.samples(before, now)
            assert all(len(sample.labels) == len(METRICS[sample.metric].labels) for sample in samples)
            assert len({(sample.metric, sample.labels) for sample in samples}) == len(samples) <= 64
