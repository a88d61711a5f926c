"""The GPUs' own figures as metrics: temperature, power, frequency and the like of each card, and of the claim that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dra.health import telemetry
from dra.health.telemetry import Sample
from dra.names import Bdf
from nursery_apps.metrics import Registry


class Holder(msgspec.Struct, frozen=True):
    """Who has a GPU; empty where nobody does, or it is not known."""

    namespace: str = ""
    claim: str = ""
    pod: str = ""


class Told(msgspec.Struct, frozen=True):
    """The newest figures of one GPU."""

    bdf: Bdf
    model: str
    samples: Sequence[Sample]
    holder: Holder = Holder()


class TelemetryMetrics:
    """One metric for each of `dra.health.telemetry.METRICS`, named `gpu_<name>`.

    A series is there as long as its GPU is told of: what vanishes leaves none behind.
    """

    def __init__(self, registry: Registry, *, by_claim: bool) -> None:
        """`by_claim` adds the claim that holds the GPU, and its pod: a series for each, which a monitoring system may not want."""
        self._by_claim = by_claim
        common = ("bdf", "model", *(("claim_namespace", "claim_name", "pod") if by_claim else ()))
        described = telemetry.METRICS.items()
        self._gauges = {
            name: registry.gauge(f"gpu_{name}", metric.text, *common, *metric.labels) for name, metric in described if not metric.total
        }
        self._totals = {
            name: registry.counter(f"gpu_{name}", metric.text, *common, *metric.labels) for name, metric in described if metric.total
        }

    def tell(self, gpus: Iterable[Told]) -> None:
        """These are all GPUs now, and these their figures."""
        for metric in (*self._gauges.values(), *self._totals.values()):
            metric.clear()
        for gpu in gpus:
            holder = (gpu.holder.namespace, gpu.holder.claim, gpu.holder.pod) if self._by_claim else ()
            for sample in gpu.samples:
                labels = (gpu.bdf, gpu.model, *holder, *sample.labels)
                if sample.metric in self._totals:
                    self._totals[sample.metric].labels(*labels).inc(sample.value)
                else:
                    self._gauges[sample.metric].labels(*labels).set(sample.value)
