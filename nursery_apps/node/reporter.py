"""What happens on the node, said to people: in the log, in Events, in metrics."""

from __future__ import annotations

import logging
from typing import Final

from dra import journal
from dra.errors import DriverError
from dra.kube.claims import Consumer
from dra.kube.events import Regarding, Weight
from dra.names import Bdf, ClaimUid, NodeName
from nursery_apps import log as log_lines
from nursery_apps.metrics import Metrics
from nursery_apps.node.announcer import Announcer
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.node.desk import Verb
from nursery_apps.node.journal_writer import Opened
from nursery_apps.node.reconciler import Recovered

log = logging.getLogger(__name__)

PODS_TOLD: Final = 4
"""Of a claim that many pods share; the claim's own Event has the same text."""


class Reporter:
    """One method for each thing that a part of the plugin has to say."""

    def __init__(self, node: NodeName, announcer: Announcer, metrics: Metrics) -> None:
        self._node, self._announcer, self._metrics = node, announcer, metrics

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
        with log_lines.about_claim(ref.uid):
            if error is not None:
                log.warning("%s of %s/%s failed after %.3f s: %s", verb, ref.namespace, ref.name, took, error)
                if verb is not Verb.SETTLE:
                    concerned = [Regarding("ResourceClaim", ref.name, ref.namespace, ref.uid, "resource.k8s.io/v1")]
                    pods = [consumer for consumer in consumers if consumer.resource == "pods"]
                    concerned += [Regarding("Pod", pod.name, ref.namespace, pod.uid) for pod in pods[:PODS_TOLD]]
                    for about in concerned:
                        self._announcer.announce(about, Weight.WARNING, f"{verb.capitalize()}Failed", str(error))
            elif verb is not Verb.SETTLE:
                log.info("%s of %s/%s done in %.1f ms", verb, ref.namespace, ref.name, 1000 * took)

    def finding(self, reason: str, claim: ClaimUid | None, text: str) -> None:
        self._metrics.finding(reason)
        self.node_event(Weight.WARNING, reason, text if claim is None or claim in text else f"claim {claim}: {text}")

    def wedged(self, bdf: Bdf, how: str) -> None:
        self._metrics.wedged()
        self.node_event(Weight.WARNING, "GPUWedged", f"GPU {bdf} is wedged ({how}): withdrawn until its driver is bound again")

    def card_fault(self, bdf: Bdf, fault: DriverError) -> None:
        text = str(fault) if bdf in str(fault) else f"{bdf}: {fault}"
        log.error("%s", text)
        self.finding(fault.reason, None, text)

    def layout(self, sentence: str, at_fault: bool) -> None:
        log.log(logging.WARNING if at_fault else logging.INFO, "layout: %s", sentence)
        self.node_event(Weight.WARNING if at_fault else Weight.NORMAL, "LayoutImpossible" if at_fault else "LayoutPlanned", sentence)

    def tainted(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.node_event(Weight.WARNING, "GPUTainted", sentence)

    def node_event(self, weight: Weight, reason: str, text: str) -> None:
        # `kubectl describe node` looks for Events under the Node's name as UID.
        self._announcer.announce(Regarding("Node", self._node, uid=self._node), weight, reason, text)
