"""Everything the controller counts, by name."""

from __future__ import annotations

from collections.abc import Mapping

from dra import cluster_watch
from nursery_apps.controller import admission, alert_receiver
from nursery_apps.metrics import Registry


class ControllerMetrics(Registry):
    def __init__(self) -> None:
        super().__init__()
        self._leading = self.gauge("leading", "1 while this controller holds the Lease.")
        self._allocated = self.counter("claims_allocated", "Claims that this controller allocated.")
        self._waiting = self.gauge("claims_waiting", "Pods and immediate claims that wait for devices (classic DRA).")
        self._held = self.gauge("claims_with_devices", "Claims that hold devices of this driver (classic DRA).")
        self._queue = self.gauge("queue_length", "Claims and pods waiting to be worked on, or worked on.")
        self._failing = self.gauge("queue_failing", "Claims and pods whose last try failed.")
        self._nodes = self.gauge("nodes", "Nodes with this driver's plugin, by whether something can be allocated there.", "ready")
        self.both()
        self._alerts = self.counter(
            "alert_notifications", "Notifications of Alertmanager, by outcome (applied, partly, ignored, malformed, failed).", "outcome"
        )
        self._reviews = self.counter(
            "admission_reviews", "Claims and templates judged, by outcome (allowed, refused, foreign, malformed).", "outcome"
        )
        self._incidents = self.gauge(
            "incidents",
            "What lasts too long in the cluster: SlicesMissing and SlicesStale of nodes, ClaimOnDeadNode of claims (structured DRA).",
            "reason",
        )
        self._certificate = self.gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in seconds since the epoch; 0 while none can be used. By service: alerts, webhook.",
            "service",
        )
        for outcome in alert_receiver.OUTCOMES:
            self._alerts.labels(outcome)
        for outcome in admission.OUTCOMES:
            self._reviews.labels(outcome)
        self.incidents(dict.fromkeys(cluster_watch.REASONS, 0))

    def allocated(self, _node: str, claims: int) -> None:
        self._allocated.inc(claims)

    def notified(self, outcome: str) -> None:
        self._alerts.labels(outcome).inc()

    def reviewed(self, outcome: str) -> None:
        self._reviews.labels(outcome).inc()

    def incidents(self, counts: Mapping[str, int]) -> None:
        for reason, count in counts.items():
            self._incidents.labels(reason).set(count)

    def certificate(self, service: str, ends: float) -> None:
        """That in use; `ends` in seconds since the epoch, 0 while there is none."""
        self._certificate.labels(service).set(ends)

    def snapshot(self, *, leading: bool, waiting: int, held: int, queue: int, failing: int, ready: int, not_ready: int) -> bytes:
        """The exposition, after what others count was looked up."""
        self._leading.set(leading)
        self._waiting.set(waiting)
        self._held.set(held)
        self._queue.set(queue)
        self._failing.set(failing)
        self._nodes.labels("true").set(ready)
        self._nodes.labels("false").set(not_ready)
        return self.exposition()
