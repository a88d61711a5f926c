"""What the programs count, by name; `docs/reference/metrics.md` is made from it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest

from dra.devices import Inventory
from dra.errors import DriverError
from dra.health.told import Level
from dra.health.verdict import Verdict
from dra.kube import event_reasons
from dra.kube.event_reasons import Reason
from dra.ledger import Ledger
from dra.names import Bdf

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
"""From one file write to just below the kubelet's 45 s."""


PREFIX: Final = "intel_gpu_dra_"


class Described(msgspec.Struct, frozen=True):
    """One metric as its readers know it."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str


RELOADS: Final = ("applied", "partly", "refused", "invalid", "unchanged")
"""How reading a settings file can end (`nursery_apps.reload.Result`)."""


class Registry:
    """A program's metrics: one registry of our own, so that nothing foreign slips in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        """In the order of the exposition; the process's own (`process_*`) come before them."""
        self._counted: dict[Counter, int] = {}
        """What totals that others keep were when last told."""
        ProcessCollector(registry=self.registry)
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which only OpenMetrics readers know to use

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        self.described.append(Described(f"{PREFIX}{name}_total", "counter", labels, text))
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.described.append(Described(PREFIX + name, "gauge", labels, text))
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        self.described.append(Described(PREFIX + name, "histogram", labels, text))
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=_SECONDS)

    def both(self) -> None:
        """What every program has."""
        self._events = self.counter("events_written", "Events written.")
        self._events_dropped = self.counter("events_dropped", "Sentences that nobody will read: too many at once, or refused.")
        self._reloads = self.counter("reloads", "Settings files read, by result (applied, partly, refused, invalid, unchanged).", "result")
        self._last_reload = self.gauge("last_reload_successful", "0 while the settings file, as last read, is refused or cannot be used.")
        self._ready = self.gauge("ready", "1 if what /readyz looks at is well, by its line there.", "check")
        self._behind = self.gauge("watches_behind", "1 while what was read of the API server may be out of date.")
        # Series that are there from the start let the first failure be seen as a rise from 0.
        for result in RELOADS:
            self._reloads.labels(result)
        self._last_reload.set(1)

    def reload(self, result: str) -> None:
        self._reloads.labels(result).inc()
        self._last_reload.set(result not in ("refused", "invalid"))

    def state(self, *, ready: Mapping[str, str | None], behind: bool, events: int, events_dropped: int) -> None:
        """What is so right now. `ready` is why not, by check; the events are totals since the start."""
        for check, why in ready.items():
            self._ready.labels(check).set(why is None)
        self._behind.set(behind)
        self.tell_total(self._events, events)
        self.tell_total(self._events_dropped, events_dropped)

    def tell_total(self, counter: Counter, total: int) -> None:
        """A counter that somebody else keeps has come to `total`."""
        counter.inc(total - self._counted.get(counter, 0))
        self._counted[counter] = total

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class Metrics(Registry):
    """The node plugin's."""

    def __init__(self) -> None:
        super().__init__()
        counter, gauge, histogram = self.counter, self.gauge, self.histogram
        self._operations = counter(
            "claim_operations", "Operations on claims, by outcome (ok, or the reason of the error).", "verb", "outcome"
        )
        self._operation_seconds = histogram("claim_operation_seconds", "How long operations on claims took, waiting included.", "verb")
        self._step_seconds = histogram(
            "claim_step_seconds", "How long the steps of operations took: read, device, card, journal, cdi.", "step"
        )
        self._card_step_seconds = histogram(
            "card_step_seconds",
            "How long steps of cutting cards and switching drivers took: MakeVfs, RemoveVfs, Provision, Unbind, ...",
            "step",
        )
        self._faulty_cards = gauge(
            "faulty_cards", "Cards of which something could not be done at the last try: cutting, making whole, switching drivers."
        )
        self._stuck_cards = gauge("stuck_cards", "Cards on which a call hangs in the kernel.")
        self._vfs = gauge("vfs", "VFs on this node that this driver made.")
        self._claims = gauge("claims", "Claims that this node holds, by stage.", "stage")
        self._devices = gauge("devices", "GPUs on this node, by state.", "state")
        self._devices_in_use = gauge("devices_in_use", "GPUs held by claims.")
        self._scan_seconds = histogram("inventory_scan_seconds", "How long reading the machine took.")
        self._info = gauge("gpu_info", "1 for each GPU and VF that is there.", "bdf", "pci_id", "model", "kind", "driver")
        self._hung = gauge("hung_scans", "Threads that hang in the kernel while reading the machine.")
        self._health = gauge("gpu_health", "1 for how a GPU is: ok, degraded, failed, unknown.", "bdf", "level")
        self._health_changes = counter("gpu_health_changes", "Times a GPU became so.", "bdf", "level")
        self._ailments = gauge(
            "gpu_ailments",
            "1 for each condition that is held against a GPU: degraded, failed, or healing after it.",
            "bdf",
            "condition",
            "state",
        )
        self._hanging = gauge("gpus_unresponsive", "GPUs on which reading the kernel's files hangs.")
        self._wedged = counter("wedged", "Times a driver said that it gave up on its card.")
        self._journal_commits = counter("journal_commits", "Groups written to the journal, one sync each.")
        self._journal_decisions = counter("journal_decisions", "Decisions in those groups.")
        self._journal_bytes = counter("journal_bytes", "Bytes appended to the journal.")
        self._journal_errors = counter("journal_errors", "Groups that could not be written to the journal.")
        self._journal_seconds = histogram("journal_commit_seconds", "How long a group took, sync included.")
        self._findings = counter("findings", "Things that were not as they should be and were repaired or reported.", "reason")
        self._published = gauge("published_devices", "GPUs in this node's ResourceSlices.")
        self._published_slices = gauge("published_slices", "ResourceSlices of this node.")
        self._in_sync = gauge("slices_in_sync", "1 if the ResourceSlices are what they should be.")
        self._withdrawn = gauge("withdrawn_devices", "GPUs withdrawn because the API server does not keep their taint.")
        self._not_published = gauge("unpublishable_values", "Attributes and the like that the API server would refuse, left out.")
        self._dropped_fields = gauge("dropped_fields", "Fields of ResourceSlices that the API server did not keep.")
        self._slice_writes = counter("slice_writes", "Writes to ResourceSlices.")
        self.both()
        self._registered = gauge("registered", "1 if the kubelet has accepted the driver.")
        self._decommissioned = gauge("decommissioned", "1 if the driver is to be removed and has left nothing on the node.")
        for reason in event_reasons.FINDINGS:
            self._findings.labels(reason)
        for verb in ("prepare", "unprepare", "settle"):
            self._operations.labels(verb, "ok")
            self._operation_seconds.labels(verb)

    def operation(self, verb: str, error: DriverError | None, seconds: float) -> None:
        self._operations.labels(verb, "ok" if error is None else error.reason).inc()
        self._operation_seconds.labels(verb).observe(seconds)

    def step(self, step: str, seconds: float) -> None:
        self._step_seconds.labels(step).observe(seconds)

    def card_step(self, bdf: Bdf, step: str, seconds: float) -> None:  # noqa: ARG002  a label for each card would be too many series
        self._card_step_seconds.labels(step).observe(seconds)

    def commit(self, decisions: int, size_bytes: int, seconds: float) -> None:
        self._journal_commits.inc()
        self._journal_decisions.inc(decisions)
        self._journal_bytes.inc(size_bytes)
        self._journal_seconds.observe(seconds)

    def commit_failed(self) -> None:
        self._journal_errors.inc()

    def scan(self, seconds: float, hung: int) -> None:
        self._scan_seconds.observe(seconds)
        self._hung.set(hung)

    def wedged(self) -> None:
        self._wedged.inc()

    def health(self, verdicts: Mapping[Bdf, Verdict], hanging: int) -> None:
        """What is held against GPUs now, and on how many of them a read hangs."""
        self._hanging.set(hanging)
        self._health.clear()
        self._ailments.clear()
        for bdf, verdict in verdicts.items():
            self._health.labels(bdf, verdict.level).set(1)
            for level in Level:
                self._health_changes.labels(bdf, level)
            for ailment in verdict.ailments:
                if ailment.of is None:
                    state = "healing" if ailment.healing else ailment.severity.name.lower()
                    self._ailments.labels(bdf, ailment.condition, state).set(1)

    def health_changed(self, bdf: Bdf, level: Level) -> None:
        self._health_changes.labels(bdf, level).inc()

    def finding(self, reason: Reason) -> None:
        self._findings.labels(reason).inc()

    def snapshot(
        self,
        *,
        inventory: Inventory,
        ledger: Ledger,
        devices: int,
        slices: int,
        in_sync: bool,
        withdrawn: int,
        not_published: int,
        dropped_fields: int,
        slice_writes: int,
        registered: bool,
        faulty_cards: int,
        stuck_cards: int,
        decommissioned: bool = False,
    ) -> bytes:
        """The exposition text, with the gauges set to what is true right now. `slice_writes` is a total since the start."""
        self._devices.clear()
        for state, count in Tally(gpu.state for gpu in inventory.gpus).items():
            self._devices.labels(state).set(count)
        self._info.clear()
        for gpu in inventory.gpus:
            self._info.labels(gpu.bdf, gpu.device, gpu.model or "", gpu.kind, gpu.driver or "").set(1)
        self._claims.clear()
        for stage, count in Tally(record.stage for record in ledger.records()).items():
            self._claims.labels(stage).set(count)
        if ledger.parked:
            self._claims.labels("parked").set(len(ledger.parked))
        self._devices_in_use.set(len(ledger.in_use()))
        self._faulty_cards.set(faulty_cards)
        self._stuck_cards.set(stuck_cards)
        self._vfs.set(sum(gpu.vfs_now for gpu in inventory.gpus if gpu.bdf in ledger.carvings))
        self._published.set(devices)
        self._published_slices.set(slices)
        self._in_sync.set(in_sync)
        self._withdrawn.set(withdrawn)
        self._not_published.set(not_published)
        self._dropped_fields.set(dropped_fields)
        self.tell_total(self._slice_writes, slice_writes)
        self._registered.set(registered)
        self._decommissioned.set(decommissioned)
        return self.exposition()
