"""What happens on the node, said to people: in the log, in Events, in metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from dra import journal
from dra.errors import DriverError
from dra.health import telling
from dra.health.told import Level
from dra.health.verdict import Verdict
from dra.kube import event_reasons
from dra.kube.claims import Consumer
from dra.kube.event_reasons import Reason
from dra.kube.events import Regarding, Weight
from dra.names import Bdf, ClaimUid, NodeName
from dra.records import Record
from nursery_apps import log as log_lines
from nursery_apps.announcer import Announcer
from nursery_apps.metrics import Metrics
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.node.desk import Verb
from nursery_apps.node.journal_writer import Opened
from nursery_apps.node.reconciler import Recovered

log = logging.getLogger(__name__)

_OF_LEVEL: Final[Mapping[Level, Reason]] = {
    Level.OK: "GPUHealthy",
    Level.DEGRADED: "GPUDegraded",
    Level.FAILED: "GPUFailed",
    Level.UNKNOWN: "GPUUnknown",
}
_OF_FAILURE: Final[Mapping[Verb, Reason]] = {Verb.PREPARE: "PrepareFailed", Verb.UNPREPARE: "UnprepareFailed"}
_OF_RELOAD: Final[Mapping[str, Reason]] = {
    "applied": "SettingsApplied",
    "partly": "SettingsPartly",
    "refused": "SettingsRefused",
    "invalid": "SettingsInvalid",
    "unchanged": "SettingsUnchanged",
}

PODS_TOLD: Final = 4
"""Of a claim that many pods share; the claim's own Event has the same text."""


CLAIMS_KNOWN: Final = 1024
"""Claims whose pods are known: some times more than a node runs pods. Kubelets up to 1.30 may never say that one is over."""


class Reporter:
    """One method for each thing that a part of the plugin has to say."""

    def __init__(self, node: NodeName, announcer: Announcer, metrics: Metrics) -> None:
        self._node, self._announcer, self._metrics = node, announcer, metrics
        self._consumers: dict[ClaimUid, tuple[Consumer, ...]] = {}
        """Of claims that were prepared in this life: their pods are told of what becomes of their devices."""

    def opened(self, opened: Opened) -> None:
        """The journal was read."""
        log.info("journal: %d claims", opened.claims)
        if opened.torn_bytes:
            log.info("journal: dropped %d bytes of a write that was cut short", opened.torn_bytes)
        if opened.illegible:
            log.error("journal: %d lines are illegible; they were set aside in %s", opened.illegible, journal.PARKED)
        for parked in opened.parked:
            text = f"a record of the journal cannot be believed ({parked.why}), claim {parked.uid or 'unknown'}: its devices are kept back"
            log.error("%s: %s", text, ", ".join(parked.devices) or "none named")
            self.finding("RecordParked", parked.uid, text)

    def recovered(self, recovered: Recovered) -> None:
        log.info(
            "recovered: %d claims, %d orphaned CDI files removed, %d claims taken over",
            recovered.claims,
            recovered.orphan_files,
            recovered.taken_over,
        )

    def outcome(self, verb: Verb, ref: ClaimRef, error: DriverError | None, took: float, consumers: tuple[Consumer, ...]) -> None:
        self._metrics.operation(verb, error, took)
        known = self._consumers.pop(ref.uid, ())
        if verb is not Verb.UNPREPARE or error is not None:
            self._consumers[ref.uid] = consumers or known
            while len(self._consumers) > CLAIMS_KNOWN:
                del self._consumers[next(iter(self._consumers))]
        with log_lines.about_claim(ref.uid):
            if error is not None:
                log.warning("%s of %s/%s failed after %.3f s: %s", verb, ref.namespace, ref.name, took, error)
                if (reason := _OF_FAILURE.get(verb)) is not None:
                    self._claim_event(ref, consumers, Weight.WARNING, reason, str(error))
            elif verb is not Verb.SETTLE:
                log.info("%s of %s/%s done in %.1f ms", verb, ref.namespace, ref.name, 1000 * took)

    def finding(self, reason: Reason, claim: ClaimUid | None, text: str) -> None:
        self._metrics.finding(reason)
        self.node_event(Weight.WARNING, reason, text if claim is None or claim in text else f"claim {claim}: {text}")

    def wedged(self, bdf: Bdf, how: str) -> None:
        self._metrics.wedged()
        self.node_event(Weight.WARNING, "GPUWedged", f"GPU {bdf} is wedged ({how}): withdrawn until its driver is bound again")

    def card_fault(self, bdf: Bdf, fault: DriverError) -> None:
        text = str(fault) if bdf in str(fault) else f"{bdf}: {fault}"
        log.error("%s", text)
        self.finding(event_reasons.of_error(fault, "CardFault"), None, text)

    def layout(self, sentence: str, at_fault: bool) -> None:
        log.log(logging.WARNING if at_fault else logging.INFO, "layout: %s", sentence)
        self.node_event(Weight.WARNING if at_fault else Weight.NORMAL, "LayoutImpossible" if at_fault else "LayoutPlanned", sentence)

    def tainted(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.node_event(Weight.WARNING, "GPUTainted", sentence)

    def verdict(self, bdf: Bdf, before: Verdict | None, now: Verdict, holders: Iterable[Record]) -> None:
        """What is held against a GPU is another than before; `holders` are the claims that have it or VFs of it."""
        known = {ailment.condition for ailment in before.ailments} if before is not None else set()
        level = before.level if before is not None else Level.OK
        if now.level is level and not any(ailment.condition not in known for ailment in now.ailments):
            return
        text, reason = f"GPU {bdf}: {telling.message(now) or 'it is well'}", _OF_LEVEL[now.level]
        weight = Weight.NORMAL if now.level is Level.OK else Weight.WARNING
        log.log(logging.INFO if now.level is Level.OK else logging.WARNING, "health %s: %s", now.level, text)
        self.node_event(weight, reason, text)
        for record in holders:
            if record.name:
                ref = ClaimRef(record.uid, record.namespace, record.name)
                self._claim_event(ref, self._consumers.get(record.uid, ()), weight, reason, text)

    def reloaded(self, outcome: str, lines: Iterable[str]) -> None:
        """A settings file was read; `outcome` is one of `nursery_apps.reload.Result`."""
        weight = Weight.WARNING if outcome in ("invalid", "refused") else Weight.NORMAL
        self.node_event(weight, _OF_RELOAD[outcome], "; ".join(lines))

    def pod_of(self, uid: ClaimUid) -> str:
        """Name of a pod that uses a claim; empty if none is known, or several are."""
        pods = [consumer.name for consumer in self._consumers.get(uid, ()) if consumer.resource == "pods"]
        return pods[0] if len(pods) == 1 else ""

    def _claim_event(self, ref: ClaimRef, consumers: tuple[Consumer, ...], weight: Weight, reason: Reason, text: str) -> None:
        """On the claim, and on the pods that use it."""
        concerned = [Regarding("ResourceClaim", ref.name, ref.namespace, ref.uid, "resource.k8s.io/v1")]
        pods = [consumer for consumer in consumers if consumer.resource == "pods"]
        concerned += [Regarding("Pod", pod.name, ref.namespace, pod.uid) for pod in pods[:PODS_TOLD]]
        for about in concerned:
            self._announcer.announce(about, weight, reason, text)

    def node_event(self, weight: Weight, reason: Reason, text: str) -> None:
        # `kubectl describe node` looks for Events under the Node's name as UID.
        self._announcer.announce(Regarding("Node", self._node, uid=self._node), weight, reason, text)
