"""What the controller serves to others, on every replica: a place for alerts, and judgement of claims' configuration."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

import trio

from dra import controller_settings
from dra.controller_settings import ControllerConfiguration
from dra.pool import Effect
from nursery_apps import tls
from nursery_apps.controller import admission, alert_receiver
from nursery_apps.controller.admission import Admission
from nursery_apps.controller.alert_receiver import AlertReceiver
from nursery_apps.controller.metrics import ControllerMetrics
from nursery_apps.controller.tainter import Tainter
from nursery_apps.fresh import Files, Fresh
from nursery_apps.http_service import HttpService
from nursery_apps.latest import Latest
from nursery_apps.seams import KubeApi, RunBlocking
from nursery_apps.tls import Certificate

T = TypeVar("T")


class Services:
    """Each method is a task, ready when its port is bound; without a port in the settings it ends at once."""

    def __init__(
        self,
        kube: KubeApi,
        *,
        namespace: str,
        settings: Latest[ControllerConfiguration],
        metrics: ControllerMetrics,
        files: Callable[[tuple[str, ...]], Files],
        run_blocking: RunBlocking,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            namespace: the driver's own.
            files: opens certificates and tokens, by path.
        """
        self._kube, self._namespace, self._settings, self._metrics = kube, namespace, settings, metrics
        self._files, self._run_blocking, self._random = files, run_blocking, random
        self._certificates: dict[str, Fresh[Certificate]] = {}

    def expose(self) -> None:
        """Set the metrics to what is so now."""
        for service, fresh in self._certificates.items():
            self._metrics.certificate(service, fresh.value.ends if fresh.value is not None else 0.0)

    async def alerts(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take Alertmanager's notifications.

        Raises:
            OSError: the port is taken.
        """
        at = self._settings.value.alerts
        tainter = Tainter(
            self._kube, namespace=self._namespace, effect=lambda: Effect(self._settings.value.alerts.effect), random=self._random
        )
        async with trio.open_nursery() as nursery:
            token = await self._token(nursery, at.token_file) if at.port and at.token_file else None
            receiver = AlertReceiver(
                tainter,
                filters=lambda: controller_settings.filters_of(self._settings.value),
                token=token,
                on_outcome=self._metrics.notified,
            )
            certificate = await self._certificate(nursery, "alerts", at.certificate, at.key) if at.port and at.certificate else None
            service = HttpService(receiver, name="the alert receiver", limits=alert_receiver.LIMITS, certificate=certificate)
            await service.run(at.address, at.port, task_status=task_status)

    async def webhook(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Judge claims and templates when they are written.

        Raises:
            OSError: the port is taken.
        """
        at = self._settings.value.webhook
        async with trio.open_nursery() as nursery:
            certificate = await self._certificate(nursery, "webhook", at.certificate, at.key) if at.port else None
            judge = Admission(on_outcome=self._metrics.reviewed)
            service = HttpService(judge, name="the webhook", limits=admission.LIMITS, certificate=certificate)
            await service.run(at.address, at.port, task_status=task_status)

    async def _token(self, nursery: trio.Nursery, path: str) -> Callable[[], str | None]:
        fresh = await self._fresh(nursery, (path,), lambda texts: texts[0].strip(), "the alerts' token")
        return lambda: fresh.value

    async def _certificate(self, nursery: trio.Nursery, service: str, certificate: str, key: str) -> Callable[[], ssl.SSLContext | None]:
        fresh = await self._fresh(nursery, (certificate, key), lambda texts: tls.certificate(*texts), f"the certificate {certificate}")
        self._certificates[service] = fresh
        return lambda: fresh.value.context if fresh.value is not None else None

    async def _fresh(self, nursery: trio.Nursery, paths: tuple[str, ...], make: Callable[[tuple[str, ...]], T], name: str) -> Fresh[T]:
        fresh = Fresh(self._files(paths), make, name=name, run_blocking=self._run_blocking, random=self._random)
        await nursery.start(fresh.run)
        return fresh
