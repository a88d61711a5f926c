"""What a monitoring system sees of the controller."""

from __future__ import annotations

from nursery_apps.controller.metrics import ControllerMetrics


def exposed(metrics: ControllerMetrics, **more: int) -> dict[str, float]:
    usual = {"waiting": 0, "held": 0, "queue": 0, "failing": 0, "ready": 0, "not_ready": 0}
    text = metrics.snapshot(leading=True, **{**usual, **more}).decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("intel_gpu_dra_"))
    return {name.removeprefix("intel_gpu_dra_"): float(value) for name, _, value in lines}


def test_everything_is_there_from_the_start() -> None:
    found = exposed(ControllerMetrics())
    assert found["leading"] == 1 and found["claims_allocated_total"] == 0
    assert {name for name in found if name.startswith("reloads")} == {
        f'reloads_total{{result="{result}"}}' for result in ("applied", "partly", "refused", "invalid", "unchanged")
    }


def test_counts_are_told() -> None:
    metrics = ControllerMetrics()
    metrics.allocated("n1", 2)
    metrics.allocated("n2", 1)
    metrics.reload("applied")
    metrics.state(ready={"Lease": "held by nobody", "watches": None}, behind=False, events=9, events_dropped=10)
    found = exposed(metrics, waiting=3, held=4, queue=5, failing=6, ready=7, not_ready=8)
    assert (found['ready{check="Lease"}'], found['ready{check="watches"}'], found["watches_behind"]) == (0, 1, 0)
    names = ("claims_allocated_total", "claims_waiting", "claims_with_devices", "queue_length", "queue_failing")
    assert [found[name] for name in names] == [3, 3, 4, 5, 6]
    assert (found['nodes{ready="true"}'], found['nodes{ready="false"}']) == (7, 8)
    assert (found["events_written_total"], found["events_dropped_total"], found['reloads_total{result="applied"}']) == (9, 10, 1)
