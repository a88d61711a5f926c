"""Devices of this node that alerts have tainted, where there are no DeviceTaintRules to say so: read from its GpuAllocationState.

That kind is installed for this alone with structured DRA, and in many clusters it is not: then one small question now and then is all
that is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from dra.classic import tainting
from dra.classic.inventory import GpuAllocationState
from dra.classic.names import GROUP_VERSION
from dra.names import DeviceName, NodeName
from nursery_apps.latest import Latest
from nursery_apps.mirror import Mirror
from nursery_apps.seams import ApiError, Forbidden, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 600.0
"""Until a definition that somebody installs, or a permission that somebody grants, is noticed; spread over its upper half."""
RETRY_SECONDS: Final = 30.0
"""The same while the API server does not answer."""

# An object was perhaps stored before its kind had a schema: one that cannot be understood must not stop the watch.
STATES: Final[Resource[dict[str, Any]]] = Resource(GROUP_VERSION, "gpuallocationstates", dict, namespaced=True)


class AlertTaints:
    """Owns `tainted`."""

    def __init__(self, kube: KubeApi, node: NodeName, *, namespace: str, random: Callable[[], float]) -> None:
        """`namespace` is the driver's."""
        self._kube = kube
        self._node = node
        self._namespace = namespace
        self._random = random
        self.tainted: Latest[frozenset[DeviceName]] = Latest(frozenset())

    async def run(self) -> None:
        """Follow until cancelled. Trouble with the API server changes nothing that is known already."""
        while True:
            wait = LOOK_AGAIN_SECONDS
            try:
                await self._kube.list(STATES, namespace=self._namespace, field_selector=self._selector)
            except NotFound:
                self.tainted.set(frozenset())
            except Forbidden as error:
                log.debug("taints by alerts cannot be read: %s", error)
            except ApiError as error:
                wait = RETRY_SECONDS
                log.debug("taints by alerts cannot be read: %s", error)
            else:
                await self._follow()
                self.tainted.set(frozenset())
            await trio.sleep(wait * (0.5 + self._random() / 2))

    @property
    def _selector(self) -> str:
        return f"metadata.name={self._node}"

    async def _follow(self) -> None:
        """Returns when the kind is no longer served."""
        async with trio.open_nursery() as nursery:
            mirror: Mirror[dict[str, Any]] = Mirror(
                self._kube,
                STATES,
                field_selector=self._selector,
                namespace=self._namespace,
                random=self._random,
                on_not_served=nursery.cancel_scope.cancel,
            )
            await nursery.start(mirror.run)
            seen = -1
            while True:
                await mirror.changes.wait_newer(seen)
                seen = mirror.changes.version
                self._look(mirror.find(self._node, namespace=self._namespace))

    def _look(self, found: dict[str, Any] | None) -> None:
        try:
            state = msgspec.convert(found, GpuAllocationState) if found is not None else GpuAllocationState.empty(self._node)
        except msgspec.ValidationError as error:
            log.warning("the GpuAllocationState of this node cannot be understood, taints by alerts stay as they were: %s", error)
            return
        if self.tainted.set(frozenset(tainting.current(state))):
            log.warning("tainted by alerts are now: %s", ", ".join(sorted(self.tainted.value)) or "none")
