"""The health of the devices as the kubelet watches it, for the status of pods that use them (KEP-4680).

Kubelets from 1.34 on open one stream on the DRA socket, where their feature gate ResourceHealthStatus is on (by default from 1.36): up to
1.36 `v1alpha1`, be it announced or not, from 1.37 on the first they know of those announced at registration. Both answer the same bytes.
What they are told ends up in `pod.status.containerStatuses[].allocatedResourcesStatus` and moves nothing: no pod is evicted or kept away
for it, which is what taints are for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dra.health.told import DeviceHealth, Level, Told
from dra.names import DeviceName, PoolName
from dra.wire import dra_health_pb2 as wire
from nursery_apps import rpc
from nursery_apps.latest import Latest
from nursery_apps.seams import Clock

SERVICES: Final = ("v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")
"""For registration, and on the wire. Nothing in them is a version number to kubelets up to 1.31, which pass over what they cannot read."""

TIMEOUT_SECONDS: Final = 30
"""After which a device that is not heard of is unknown. What kubelets of 1.34 take, which do not read the field, so all take the same."""
HEARTBEAT_SECONDS: Final = 5.0
"""A sixth of the time-out, so that five in a row may be late. Not longer: when one of two instances leaves in a rolling update, kubelets of
1.37 forget what the other one told them until it speaks again."""
LONGEST_MESSAGE_BYTES: Final = 1024
"""What a pod's status holds; a kubelet cuts longer ones within a character."""

_STATUS: Final = {
    Level.OK: wire.HEALTHY,
    # It works: a pod is better off on it than restarted elsewhere, which is what controllers do to pods with unhealthy devices. The message
    # says what is amiss.
    Level.DEGRADED: wire.HEALTHY,
    Level.FAILED: wire.UNHEALTHY,
    Level.UNKNOWN: wire.UNKNOWN,
}


class HealthStream:
    """Tells any number of watchers. Nobody waits for them: who reads slowly gets the newest state, once."""

    def __init__(self, health: Latest[Told], pool: PoolName, clock: Clock) -> None:
        self._health, self._pool, self._clock = health, pool, clock

    def routes(self) -> list[rpc.Route]:
        return [
            rpc.ServerStream(
                f"/{service}/NodeWatchResources",
                wire.NodeWatchResourcesRequest.FromString,
                wire.NodeWatchResourcesResponse.SerializeToString,
                self._watch,
            )
            for service in SERVICES
        ]

    async def _watch(
        self,
        _request: wire.NodeWatchResourcesRequest,
        _call: rpc.Call,
        send: Callable[[wire.NodeWatchResourcesResponse], Awaitable[None]],
    ) -> None:
        """All devices every time: each is given up by itself when it is not heard of, and one that is not told any more shall be."""
        while True:
            seen = self._health.version
            await send(self._state())
            with trio.move_on_after(HEARTBEAT_SECONDS):
                await self._health.wait_newer(seen)

    def _state(self) -> wire.NodeWatchResourcesResponse:
        now = int(self._clock())
        return wire.NodeWatchResourcesResponse(devices=[self._device(name, how, now) for name, how in self._health.value.items()])

    def _device(self, name: DeviceName, how: DeviceHealth, now: int) -> wire.DeviceHealth:
        return wire.DeviceHealth(
            device=wire.DeviceIdentifier(pool_name=self._pool, device_name=name),
            health=_STATUS[how.level],
            last_updated_time=now,
            health_check_timeout_seconds=TIMEOUT_SECONDS,
            message=_cut(how.text),
        )


def _cut(text: str) -> str:
    return text.encode()[:LONGEST_MESSAGE_BYTES].decode(errors="ignore")
