"""Tells users in their claims what they were given and how it is: writes `status.devices`, after the fact and on the side.

No prepare waits for it. What is owed is computed from the journal, the inventory and the devices' health, so there is no queue that could
fill up: at most one claim is being written, and each that changes meanwhile is due once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import trio

from dra import backoff
from dra.claims import Stage
from dra.devices import Inventory
from dra.health import claim_devices
from dra.health.told import Told
from dra.ledger import Ledger
from dra.names import DRIVER_NAME, ClaimUid, NodeName
from dra.records import Record
from nursery_apps.latest import Latest
from nursery_apps.node.served_api import Offer
from nursery_apps.seams import ApiError, Clock, Conflict, Forbidden, Invalid, KubeApi, NotFound, Resource, Throttled, Unavailable

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 1.0
"""After a change: a claim is written once, when its VFs are made and its drivers bound, not at each step; and a short one not at all."""
FIRST_RETRY_SECONDS: Final = 1.0
RETRY_AT_MOST_SECONDS: Final = 60.0
"""Nobody waits for it, so an API server in trouble is not pressed."""
REFUSALS_MAX: Final = 8
"""In one round: without the right to write, every claim is refused alike."""
_WITHOUT: Final = "resource.k8s.io/v1alpha3"
"""Kubernetes 1.31's, which has no such field."""

_APPLY: Final = "application/apply-patch+yaml"


class ClaimStatus:
    """`run` is the task."""

    def __init__(
        self,
        kube: KubeApi,
        node: NodeName,
        *,
        served: Latest[Offer],
        ledger: Latest[Ledger],
        inventory: Latest[Inventory],
        health: Latest[Told],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._kube, self._node = kube, node
        self._served, self._ledger, self._inventory, self._health = served, ledger, inventory, health
        self._clock, self._random = clock, random
        self._settled: dict[ClaimUid, object] = {}
        """What was last seen to for each claim, as `claim_devices.seen` has it."""
        self._refusals: Counter[ClaimUid] = Counter()
        """How often each claim that is due was refused."""
        self._given_up: Offer | None = None
        """What the API server offered when it would not have our entries: another offer is another server."""
        self._said = ""
        """Why claims do not say it, as the log has it."""
        self._wake = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for source in (self._served, self._ledger, self._inventory, self._health):
                nursery.start_soon(self._follow, source)
            await self._write()

    async def _follow(self, source: Latest[Any]) -> None:
        seen = -1  # what changed before this task first ran counts too
        while True:
            await source.wait_newer(seen)
            seen = source.version
            self._wake.set()

    async def _write(self) -> None:
        delays = self._delays()
        while True:
            await self._wake.wait()
            await trio.sleep(SETTLE_SECONDS)
            self._wake = trio.Event()
            if (error := await self._see_to_all()) is None:
                delays = self._delays()
                continue
            wait = max(next(delays), error.retry_after_seconds or 0)
            log.debug("status of claims: again in %.0f s: %s", wait, error)
            self._wake.set()
            await trio.sleep(wait)

    async def _see_to_all(self) -> ApiError | None:
        """Every claim that is due, those last that were refused before; why some are due still."""
        refused: list[ApiError] = []
        for uid in sorted(self._due(), key=lambda uid: self._refusals[uid]):
            try:
                await self._see_to(uid)
            except (Unavailable, Throttled) as error:
                return error
            except ApiError as error:
                self._refusals[uid] += 1
                refused.append(error)
                if len(refused) == REFUSALS_MAX:
                    break
            else:
                del self._refusals[uid]
        return refused[0] if refused else None

    def _delays(self) -> Iterator[float]:
        return backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)

    def _due(self) -> list[ClaimUid]:
        ledger = self._ledger.value
        self._settled = {uid: seen for uid, seen in self._settled.items() if uid in ledger.claims}
        self._refusals = Counter({uid: times for uid, times in self._refusals.items() if uid in ledger.claims})
        return [record.uid for record in ledger.records() if self._settled.get(record.uid) != self._seen(record)]

    def _seen(self, record: Record) -> object:
        return claim_devices.seen(record, self._inventory.value.by_name, self._health.value)

    async def _see_to(self, uid: ClaimUid) -> None:
        """Settle one claim as it is now: by writing, or by finding that there is nothing to write.

        Raises:
            ApiError: the API server may have it later.
        """
        offer, record = self._served.value, self._ledger.value.get(uid)
        if record is None or record.stage is not Stage.GRANTED or record.driver != DRIVER_NAME:
            return
        if not record.name:
            return  # taken over from a driver that kept UIDs only: it has its name with its next prepare
        if offer.claims is None or offer == self._given_up or offer.claims.group_version == _WITHOUT:
            return
        seen = self._seen(record)
        kind: Resource[dict[str, Any]] = Resource(offer.claims.group_version, offer.claims.plural, dict, namespaced=True)
        try:
            await self._bring_up_to_date(record, kind, offer)
        except Forbidden as error:
            # Rights come and go with what an administrator does, and a webhook may mind one namespace: so it is asked again.
            self._say(f"the API server forbids it: {error}")
            raise
        except (NotFound, Conflict, Invalid) as error:
            # It is gone, was given to others, or somebody else claims our entries: the next change finds it as it is then.
            log.debug("status of claim %s/%s is left as it is: %s", record.namespace, record.name, error)
        if offer != self._given_up:
            self._settled[uid] = seen

    async def _bring_up_to_date(self, record: Record, kind: Resource[dict[str, Any]], offer: Offer) -> None:
        claim = await self._kube.get(kind, record.name, namespace=record.namespace)
        if claim["metadata"]["uid"] != record.uid:
            return
        wanted = claim_devices.entries(
            record,
            claim,
            ledger=self._ledger.value,
            gpus=self._inventory.value.by_name,
            told=self._health.value,
            now=self._clock(),
        )
        if not wanted or claim_devices.stand(claim, wanted):
            return
        if not claim_devices.is_of_node(claim, self._node):
            log.info("claim %s/%s is not of this node alone: its status says nothing of our devices", record.namespace, record.name)
            return
        # One field manager for the plugins of all nodes is enough, since no claim has our devices on two. The uid: never another claim's.
        body = {
            "apiVersion": kind.group_version,
            "kind": "ResourceClaim",
            "metadata": {"name": record.name, "namespace": record.namespace, "uid": record.uid},
            "status": {"devices": wanted},
        }
        answer = await self._kube.patch(kind, record.name, body, content_type=_APPLY, namespace=record.namespace, subresource="status")
        if not claim_devices.is_kept(answer, wanted):
            self._give_up(offer, "the API server has no such field (its feature gate DRAResourceClaimDeviceStatus is off)")

    def _give_up(self, offer: Offer, why: str) -> None:
        self._say(why)
        self._given_up = offer

    def _say(self, why: str) -> None:
        if self._said != why:
            log.info("claims do not say what they were given: %s", why)
        self._said = why
