"""Keeps this node's GpuAllocationState what it should be: writes what differs, restores what others change, says NotReady at the end.

Only the node's own keys: taints and whatever else is in it belong to others. What the original driver had prepared is taken over into the
journal first, and only then taken out.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import trio

from dra import backoff
from dra.classic import state_patch
from dra.classic.inventory import NOT_READY, READY, AllocatableGpu
from dra.classic.names import GROUP_VERSION, DeviceUid
from dra.decommissioning import Stage
from dra.kube.node import owner_of
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.mirror import Mirror
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import ApiError, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

BATCH_SECONDS: Final = 0.25
"""Changes that follow a write within so long are written together: a card's VFs come one after the other."""
FIGHT_AT_MOST_SECONDS: Final = 30.0
"""Whoever keeps changing our keys is answered ever more slowly, and still within this time."""
QUIET_SECONDS: Final = 60.0
"""After so long without a write the next repair is quick again."""
FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 30.0
LAST_WORD_SECONDS: Final = 2.0
"""For saying NotReady when stopping; if that fails the heartbeat's end says it, later."""

Devices = Mapping[DeviceUid, AllocatableGpu]
Json = dict[str, Any]
STATES: Final[Resource[Json]] = Resource(GROUP_VERSION, "gpuallocationstates", dict, namespaced=True)


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """How far that is, for readiness and metrics."""

    in_sync: bool = False
    devices: int = 0
    writes: int = 0
    """Since the start."""
    dropped: int = 0
    """Devices of which the server did not keep all."""
    error: str | None = "nothing is published yet"


class StatePublisher:
    """`run` is the task, `status` what it came to."""

    def __init__(
        self,
        kube: KubeApi,
        node_name: NodeName,
        namespace: str,
        *,
        node: Latest[OwnNode | None],
        desired: Latest[Devices | None],
        take_over: Callable[[Json], Awaitable[None]],
        random: Callable[[], float],
        stage: Latest[Stage] | None = None,
    ) -> None:
        """
        Args:
            stage: of the driver's removal: the node is Ready in service only, and has no object when it is clean.
            desired: None while the hardware was not looked at yet.
            take_over: given the stored object; returns when the claims that the original driver had prepared are in the journal.
        """
        self._kube, self._node_name, self._namespace = kube, node_name, namespace
        self._node, self._desired, self._take_over, self._random = node, desired, take_over, random
        self._stage = stage if stage is not None else Latest(Stage.IN_SERVICE)
        self._mirror: Mirror[Json] = Mirror(kube, STATES, namespace=namespace, field_selector=f"metadata.name={node_name}", random=random)
        self._said: str | None = None
        self._in_vain: Json | None = None
        """What the server does not keep: its definition of the kind is older than this driver."""
        self.status: Latest[Stated] = Latest(Stated())

    @property
    def why_behind(self) -> str | None:
        """Why the copy of the object may be out of date."""
        return self._mirror.error.value

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish until cancelled, then say NotReady. Trouble with the API server never ends it."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_why_not)
            await nursery.start(self._mirror.run)
            try:
                await self._publish()
            finally:
                with trio.move_on_after(LAST_WORD_SECONDS, shield=True):
                    await self._say_goodbye()

    async def _tell_why_not(self) -> None:
        """Until the first LIST has worked, its error is why nothing is published."""
        while not self._mirror.changes.value:
            seen = self._mirror.error.version
            self._tell(in_sync=False, error=f"cannot list GpuAllocationStates: {self._mirror.error.value}")
            await self._mirror.error.wait_newer(seen)

    async def _publish(self) -> None:
        retries, spacing = self._retries(), self._spacing()
        last_desired, last_write = self._desired.value, -QUIET_SECONDS
        while True:
            cells: tuple[Latest[Any], ...] = (self._desired, self._node, self._mirror.changes, self._stage)
            seen = [(cell, cell.version) for cell in cells]
            desired = self._desired.value
            try:
                wrote = await self._round()
            except ApiError as error:
                self._tell(in_sync=False, error=str(error))
                self._complain(f"cannot publish GpuAllocationState {self._node_name}: {error}")
                await trio.sleep(max(next(retries), error.retry_after_seconds or 0))
                await self._look_again()
                continue
            retries, self._said = self._retries(), None
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
        desired, node = self._desired.value, self._node.value
        if desired is None or node is None or node.deleted:
            what = "the hardware was not read yet" if desired is None else f"there is no Node {self._node_name} to own the state"
            self._tell(in_sync=False, error=what)
            return False
        owner = owner_of(self._node_name, node.uid)
        status = READY if self._stage.value is Stage.IN_SERVICE else NOT_READY
        stored = self._mirror.objects.get((self._namespace, self._node_name))
        if self._stage.value is Stage.CLEAN and not ((stored or {}).get("spec") or {}).get("preparedClaims"):
            return await self._withdraw(stored)
        if stored is None:
            body = state_patch.create(self._node_name, self._namespace, owner, desired, status)
            self._wrote(await self._kube.create(STATES, body, namespace=self._namespace))
            return True
        await self._take_over(stored)
        changes = state_patch.patch(stored, owner, desired, status)
        if changes is not None and changes != self._in_vain:
            kept = await self._patch(changes)
            if state_patch.patch(kept, owner, desired, status) == changes:
                self._in_vain = changes
                self._complain(
                    "the API server keeps only some of GpuAllocationState: its CustomResourceDefinition is older than the driver's"
                )
            return True
        dropped = len(((changes or {}).get("spec") or {}).get("allocatableDevices") or {})
        self._tell(in_sync=True, devices=len(desired), dropped=dropped, error=None)
        return False

    async def _withdraw(self, stored: Json | None) -> bool:
        if stored is not None:
            try:
                await self._kube.delete(STATES, self._node_name, namespace=self._namespace, uid=stored["metadata"].get("uid", ""))
            except NotFound:
                log.debug("GpuAllocationState %s is gone already", self._node_name)
            self._mirror.forget(self._node_name, namespace=self._namespace)
        self._tell(in_sync=True, devices=0, dropped=0, error=None)
        return stored is not None

    async def _patch(self, changes: Json) -> Json:
        try:
            stored = await self._kube.patch(
                STATES, self._node_name, changes, content_type=state_patch.CONTENT_TYPE, namespace=self._namespace
            )
        except NotFound:
            self._mirror.forget(self._node_name, namespace=self._namespace)
            raise
        self._wrote(stored)
        return stored

    def _wrote(self, stored: Json) -> None:
        self._tell(writes=self.status.value.writes + 1)
        self._mirror.adopt(stored)

    async def _look_again(self) -> None:
        """What was refused, or got lost, is to be read, not guessed."""
        try:
            await self._mirror.refresh()
        except ApiError as error:
            log.debug("cannot read GpuAllocationState %s: %s", self._node_name, error)

    async def _say_goodbye(self) -> None:
        if (self._namespace, self._node_name) not in self._mirror.objects:
            return
        try:
            await self._patch(state_patch.not_ready())
        except ApiError as error:
            log.warning("could not say that the node is not ready any more: %s", error)

    def _tell(self, **changes: Any) -> None:
        self.status.set(msgspec.structs.replace(self.status.value, **changes))

    def _complain(self, sentence: str) -> None:
        """Once for each cause in a row."""
        if sentence != self._said:
            self._said = sentence
            log.warning("%s", sentence)

    def _retries(self) -> Iterator[float]:
        return backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)

    def _spacing(self) -> Iterator[float]:
        yield BATCH_SECONDS
        yield from backoff.delays(self._random, first_seconds=2 * BATCH_SECONDS, cap_seconds=FIGHT_AT_MOST_SECONDS)


async def _any_newer(seen: list[tuple[Latest[Any], int]]) -> None:
    async with trio.open_nursery() as nursery:

        async def newer(cell: Latest[Any], version: int) -> None:
            await cell.wait_newer(version)
            nursery.cancel_scope.cancel()

        for cell, version in seen:
            nursery.start_soon(newer, cell, version)
