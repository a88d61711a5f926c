"""The streams by which the kubelet watches the health of drivers' devices: one for each registered instance, from 1.34 on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from tools.simcluster import plugin_calls
from tools.simcluster.device_health import DeviceHealth
from tools.simcluster.plugin_calls import CallFailed
from tools.simcluster.registrar import Instance, Registrar

AGAIN_SECONDS: Final = 5.0
_SERVICES: Final = ("v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")
"""In 1.37's order, which counts, not the plugin's."""


def service(minor: int, announced: list[str]) -> str | None:
    """What to open: up to 1.36 v1alpha1 in any case, from 1.37 on the first service that was announced, if one was."""
    if minor <= 36:
        return "v1alpha1.DRAResourceHealth"
    return next((known for known in _SERVICES if known in announced), None)


class HealthStreams:
    """`run` is the task; `look` tells it that instances may have come or gone."""

    def __init__(
        self,
        registrar: Registrar,
        minor: int,
        health: DeviceHealth,
        *,
        log: Callable[[str], None],
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._registrar, self._minor, self._health = registrar, minor, health
        self._log, self._again_seconds = log, again_seconds
        self._open: list[tuple[Instance, trio.CancelScope]] = []
        self._changed = trio.Event()

    def look(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                there = self._registrar.instances()
                for instance, scope in self._open:
                    if not any(instance is other for other in there):
                        scope.cancel()
                self._open = [(instance, scope) for instance, scope in self._open if not scope.cancel_called]
                for instance in there:
                    if not any(instance is other for other, _ in self._open):
                        scope = trio.CancelScope()
                        self._open.append((instance, scope))
                        nursery.start_soon(self._watch, instance, scope)
                await self._changed.wait()

    async def _watch(self, instance: Instance, scope: trio.CancelScope) -> None:
        wanted = service(self._minor, instance.announced)
        with scope:
            while wanted is not None:
                try:
                    await plugin_calls.watch_health(instance.connection, wanted, partial(self._health.hear, instance.driver))
                except CallFailed as failed:
                    self._log(f"plugin {instance.driver}, {wanted}: {failed}")
                    if failed.code == "UNIMPLEMENTED" and self._minor >= 37:
                        return
                finally:
                    self._health.forget(instance.driver)
                await trio.sleep(self._again_seconds)
