"""The Kubernetes API at a pace: as many calls as the settings allow, whoever makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import trio

from dra.controller_settings import ApiRate
from nursery_apps.latest import Latest
from nursery_apps.seams import KubeApi, Listing, Resource, ServedApi, Watched

T = TypeVar("T")


class PacedKubeApi:
    """Keeps the promise of `nursery_apps.seams.KubeApi`: the same calls, some of them later. Watches count when they begin."""

    def __init__(self, kube: KubeApi, rate: Latest[ApiRate]) -> None:
        self._kube = kube
        self._rate = rate
        self._due = -float("inf")
        """When the last call that was let through would have come at the average rate."""

    async def _turn(self) -> None:
        """A leaky bucket: calls may run ahead of the average by the burst."""
        rate = self._rate.value
        self._due = max(self._due, trio.current_time() - rate.burst / rate.per_second) + 1 / rate.per_second
        if self._due > trio.current_time():
            await trio.sleep_until(self._due)

    async def served(self) -> ServedApi:
        await self._turn()
        return await self._kube.served()

    async def get(self, what: Resource[T], name: str, *, namespace: str = "") -> T:
        await self._turn()
        return await self._kube.get(what, name, namespace=namespace)

    async def list(self, what: Resource[T], *, namespace: str = "", field_selector: str = "", label_selector: str = "") -> Listing[T]:
        await self._turn()
        return await self._kube.list(what, namespace=namespace, field_selector=field_selector, label_selector=label_selector)

    async def watch(
        self, what: Resource[T], *, namespace: str = "", field_selector: str = "", resource_version: str
    ) -> AsyncGenerator[Watched[T], None]:
        await self._turn()
        events = self._kube.watch(what, namespace=namespace, field_selector=field_selector, resource_version=resource_version)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()  # noqa: ASYNC102  the watch underneath closes without waiting for anybody

    async def create(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "", dry_run: bool = False) -> T:
        await self._turn()
        return await self._kube.create(what, body, namespace=namespace, dry_run=dry_run)

    async def replace(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "") -> T:
        await self._turn()
        return await self._kube.replace(what, body, namespace=namespace)

    async def patch(
        self, what: Resource[T], name: str, body: object, *, content_type: str, namespace: str = "", subresource: str = ""
    ) -> T:
        await self._turn()
        return await self._kube.patch(what, name, body, content_type=content_type, namespace=namespace, subresource=subresource)

    async def delete(self, what: Resource[T], name: str, *, namespace: str = "", uid: str = "", resource_version: str = "") -> None:
        await self._turn()
        await self._kube.delete(what, name, namespace=namespace, uid=uid, resource_version=resource_version)
