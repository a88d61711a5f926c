"""Keeps this node's ResourceSlices what they should be: writes what differs, restores what others change, withdraws what cannot be said.

Slices stay when the program ends: the kubelet removes them if it does not come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import trio

from dra import backoff, slice_contents, slice_features, slice_plan
from dra.decommissioning import Stage
from dra.kube.event_reasons import Reason
from dra.kube.node import owner_of
from dra.names import DRIVER_NAME, DeviceName, NodeName
from dra.slice_contents import DroppedField
from dra.slice_limits import Dropped
from dra.slice_plan import Create, Delete, Replace, Write
from dra.slices import Desired, SliceApi
from nursery_apps.latest import Latest
from nursery_apps.mirror import Mirror
from nursery_apps.node.kept_features import PROBE_AGAIN_SECONDS, KeptFeatures
from nursery_apps.node.own_node import OwnNode
from nursery_apps.node.served_api import Offer
from nursery_apps.seams import ApiError, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

BATCH_SECONDS: Final = 0.25
"""A change after a quiet time is written at once; those that follow within so long are written together: a chassis of cards that comes up
over ten seconds costs forty writes at most."""
QUIET_SECONDS: Final = 60.0
"""After so long without a write the next repair is quick again."""
FIGHT_AT_MOST_SECONDS: Final = 30.0
"""Whoever keeps changing our slices (an older instance in a rolling update, an administrator's script) is answered ever more slowly,
and still within this time."""
FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 30.0

Slice = dict[str, Any]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """How far publishing is, for readiness, metrics and people."""

    in_sync: bool = False
    """What is stored is what was wanted when last looked."""
    generation: int | None = None
    slices: int = 0
    devices: int = 0
    withdrawn: tuple[DeviceName, ...] = ()
    """Devices that are not offered because the server would not keep their taints or counters."""
    not_published: tuple[Dropped, ...] = ()
    """What had to be left out before it was sent."""
    dropped: tuple[DroppedField, ...] = ()
    """What the server did not keep."""
    writes: int = 0
    """Since the start."""
    error: str | None = "nothing is published yet"


class Publisher:
    """`run` is the task, `status` what it came to."""

    def __init__(
        self,
        kube: KubeApi,
        node_name: NodeName,
        *,
        offer: Latest[Offer],
        node: Latest[OwnNode | None],
        desired: Latest[Desired | None],
        random: Callable[[], float],
        on_not_served: Callable[[], None],
        on_finding: Callable[[Reason, str], None],
        stage: Latest[Stage] | None = None,
    ) -> None:
        """
        Args:
            stage: of the driver's removal; a node that is clean has no slices.
            desired: None while the hardware was not looked at yet: an empty pool would take the GPUs of a restarted plugin away.
            on_not_served: a write was answered 404; the version may have gone.
            on_finding: (reason, sentence) about something an administrator should know, said once.
        """
        self._kube = kube
        self._node_name = node_name
        self._offer = offer
        self._node = node
        self._desired = desired
        self._random = random
        self._on_not_served = on_not_served
        self._on_finding = on_finding
        self._stage = stage if stage is not None else Latest(Stage.IN_SERVICE)
        self._session: _Session | None = None
        self.status: Latest[Published] = Latest(Published())

    @property
    def why_behind(self) -> str | None:
        """Why the copy of the node's slices may be out of date."""
        return self._session.why_behind if self._session is not None else "not read yet"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish until cancelled. `status` tells when that has come to something; trouble with the API server never ends it."""
        task_status.started()
        while True:
            seen, offer = self._offer.version, self._offer.value
            if offer.slices is None or offer.slice_api is None:
                self._tell(in_sync=False, error=offer.why)
                await self._offer.wait_newer(seen)
                continue
            async with trio.open_nursery() as nursery:
                self._session = _Session(self, offer.slices, offer.slice_api)
                nursery.start_soon(self._session.run)
                while (self._offer.value.slices, self._offer.value.slice_api) == (offer.slices, offer.slice_api):
                    await self._offer.wait_newer(self._offer.version)
                nursery.cancel_scope.cancel()

    def _tell(self, **changes: Any) -> None:
        self.status.set(msgspec.structs.replace(self.status.value, **changes))


class _Session:
    """Publishing in one API version."""

    def __init__(self, publisher: Publisher, what: Resource[Slice], api: SliceApi) -> None:
        self._of = publisher
        self._kube = publisher._kube
        self._what = what
        self._api = api
        node = publisher._node_name
        # spec.pool.name would select more exactly, but servers before 1.37 refuse it.
        selector = f"spec.driver={DRIVER_NAME},spec.nodeName={node}"
        self._mirror: Mirror[Slice] = Mirror(
            publisher._kube, what, field_selector=selector, random=publisher._random, on_not_served=publisher._on_not_served
        )
        self._features = KeptFeatures(publisher._kube, what, api, on_missed=self._find)
        self._adopted: dict[bytes, bytes] = {}
        self._in_doubt = False
        self._said: set[str] = set()

    @property
    def why_behind(self) -> str | None:
        return self._mirror.error.value

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_why_not)
            await nursery.start(self._mirror.run)
            await self._publish()

    async def _tell_why_not(self) -> None:
        """Until the first LIST has worked, its error is why nothing is published."""
        while not self._mirror.changes.value:
            seen = self._mirror.error.version
            self._of._tell(in_sync=False, error=f"cannot list ResourceSlices: {self._mirror.error.value}")
            await self._mirror.error.wait_newer(seen)

    async def _publish(self) -> None:
        retries, spacing = self._retries(), self._spacing()
        last_desired, last_write = self._of._desired.value, -QUIET_SECONDS
        while True:
            seen = [(cell, cell.version) for cell in self._cells]
            desired = self._of._desired.value
            try:
                wrote = await self._round()
            except ApiError as error:
                # Whatever was refused or got lost: what is really stored is to be read, not guessed.
                self._in_doubt = True
                delay = max(next(retries), error.retry_after_seconds or 0)
                self._of._tell(in_sync=False, error=str(error))
                self._say(logging.WARNING, f"cannot publish ResourceSlices: {error}")
                await trio.sleep(delay)
                continue
            retries = self._retries()
            if wrote:
                now = trio.current_time()
                if desired != last_desired or now - last_write >= QUIET_SECONDS:
                    spacing = self._spacing()
                last_desired, last_write = desired, now
                await trio.sleep(next(spacing))
            else:
                await _any_newer(seen)

    async def _round(self) -> bool:
        """Look, and write what differs. Whether anything had to be written."""
        if self._of._stage.value is Stage.CLEAN:
            return await self._withdraw()
        desired, node = self._of._desired.value, self._of._node.value
        if desired is None or node is None or node.deleted:
            what = "the hardware was not read yet" if desired is None else f"there is no Node {self._of._node_name} to own slices"
            self._of._tell(in_sync=False, error=what)
            return False
        if self._in_doubt:
            await self._mirror.refresh()
            self._in_doubt = False
        await self._features.ask(desired.pool)
        wrote, settled = False, False
        while not settled:
            pool = self._features.publishable(desired.pool)
            owner = owner_of(self._of._node_name, node.uid)
            writes = slice_plan.plan(list(self._mirror.objects.values()), pool, self._api, owner=owner, adopted=self._adopted)
            # What was dropped makes a sick device stand there as sound, or a card and its VFs as free: it is replaced in the same breath.
            settled = await self._make_all(writes)
            wrote = wrote or bool(writes)
        self._report(desired)
        return wrote

    async def _withdraw(self) -> bool:
        if self._in_doubt:
            await self._mirror.refresh()
            self._in_doubt = False
        writes = slice_plan.withdrawal(list(self._mirror.objects.values()))
        await self._make_all(writes)
        self._of._tell(in_sync=True, generation=None, slices=0, devices=0, withdrawn=(), not_published=(), error=None)
        return bool(writes)

    async def _make_all(self, writes: list[Write]) -> bool:
        """Make them in order. False after the first of which the server dropped something that matters: the rest would only repeat it."""
        for write in writes:
            if not await self._make(write):
                return False
        return True

    async def _make(self, write: Write) -> bool:
        """Make one write. False if the server dropped something that matters."""
        self._of._tell(writes=self._of.status.value.writes + 1)
        match write:
            case Create(body):
                return self._compare(body, await self._kube.create(self._what, body))
            case Replace(body):
                return self._compare(body, await self._kube.replace(self._what, body))
            case Delete(name, uid, resource_version):
                try:
                    await self._kube.delete(self._what, name, uid=uid, resource_version=resource_version)
                except NotFound:
                    self._of._on_not_served()  # gone already, or the version is
                self._mirror.forget(name)
                return True

    def _compare(self, sent: Slice, stored: Slice) -> bool:
        self._mirror.adopt(stored)
        dropped = slice_contents.dropped_fields(sent, stored)
        if missed := [feature for feature in slice_features.ALL if feature.missed(dropped)]:
            for feature in missed:
                self._features.do_without(feature, f"the API server does not keep {feature.what} ({feature.gate} is off)")
            return False
        if dropped:
            what = sorted({one.field for one in dropped})
            self._of._tell(dropped=dropped)
            self._find("FieldsDropped", f"the API server did not keep {', '.join(what)} of {len(dropped)} devices")
        wanted, kept = slice_contents.fingerprint(sent), slice_contents.fingerprint(stored)
        if wanted != kept:
            # What the server makes of it is how it is: sending the same again would go on for ever.
            self._adopted[wanted] = kept
        return True

    def _report(self, desired: Desired) -> None:
        stored = list(self._mirror.objects.values())
        shown = {name for one in stored for name in slice_contents.devices_of(one)}
        for one in desired.dropped:
            self._find("NotPublishable", f"{one.what} {one.name} of {one.device} is not published: {one.why}")
        self._of._tell(
            in_sync=True,
            generation=max((one["spec"]["pool"].get("generation", 0) for one in stored), default=None),
            slices=len(stored),
            devices=len(shown),
            withdrawn=tuple(device.name for device in desired.pool.devices if device.name not in shown),
            not_published=desired.dropped,
            error=None,
        )
        self._said = {text for text in self._said if not text.startswith("cannot publish")}

    def _find(self, reason: Reason, text: str) -> None:
        if self._say(logging.WARNING, text):
            self._of._on_finding(reason, text)

    def _say(self, level: int, text: str) -> bool:
        """Log a sentence once; whether this was the first time."""
        if text in self._said:
            return False
        self._said.add(text)
        log.log(level, "%s", text)
        return True

    @property
    def _cells(self) -> tuple[Latest[Any], ...]:
        return self._mirror.changes, self._of._desired, self._of._node, self._of._stage

    def _retries(self) -> Iterator[float]:
        return backoff.delays(self._of._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)

    def _spacing(self) -> Iterator[float]:
        return backoff.delays(self._of._random, first_seconds=BATCH_SECONDS, cap_seconds=FIGHT_AT_MOST_SECONDS)


async def _any_newer(seen: list[tuple[Latest[Any], int]]) -> None:
    """Until one of the cells has changed, or it is time to ask again for what the server dropped."""
    async with trio.open_nursery() as either:
        either.cancel_scope.deadline = trio.current_time() + PROBE_AGAIN_SECONDS

        async def newer(cell: Latest[Any], version: int) -> None:
            await cell.wait_newer(version)
            either.cancel_scope.cancel()

        for cell, version in seen:
            either.start_soon(newer, cell, version)
