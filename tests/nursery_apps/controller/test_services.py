"""The controller's ports, as the settings open them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trustme

from dra.controller_settings import Alerts, ControllerConfiguration, Webhook
from nursery_apps.controller.metrics import ControllerMetrics
from nursery_apps.controller.services import Services
from nursery_apps.latest import Latest
from tests.fakes.kube_api import FakeKubeApi


class Texts:
    """Files that are there and stay as they are."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def read(self) -> tuple[str, ...]:
        return self._texts

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()


async def in_place(work: Callable[[], Any]) -> Any:
    await trio.lowlevel.checkpoint()
    return work()


def services(settings: ControllerConfiguration, *texts: str, metrics: ControllerMetrics | None = None) -> Services:
    return Services(
        FakeKubeApi(),
        namespace="ns",
        settings=Latest(settings),
        metrics=metrics or ControllerMetrics(),
        files=lambda paths: Texts(*(texts or ["secret\n"] * len(paths))),
        run_blocking=in_place,
        random=lambda: 0.5,
    )


async def free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        return int(listener.socket.getsockname()[1])


async def asked(port: int, head: str, body: bytes) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"{head}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        async for chunk in stream:
            answer += chunk
    return answer.split(b"\r\n")[0].decode()


async def test_what_has_no_port_is_not_served() -> None:
    made = services(ControllerConfiguration())
    with trio.fail_after(5):
        await made.alerts()
        await made.webhook()


async def test_alerts_are_taken_from_who_shows_the_token(nursery: trio.Nursery) -> None:
    port = await free_port()
    await nursery.start(services(ControllerConfiguration(alerts=Alerts(port=port, address="127.0.0.1", token_file="/t"))).alerts)
    body = json.dumps(
        [{"status": "firing", "labels": {"alertname": "Hot", "node": "n", "pci_bdf": "03:00.0", "pci_dev": "0x56c0"}}]
    ).encode()
    head = "POST /alertmanager/api/v1/alerts HTTP/1.1\r\nContent-Type: application/json"
    assert await asked(port, head, body) == "HTTP/1.1 401 "
    assert (await asked(port, f"{head}\r\nAuthorization: Bearer secret", body)).startswith("HTTP/1.1 200")


async def test_a_webhook_without_a_usable_certificate_takes_no_connection_and_waits_for_one(nursery: trio.Nursery) -> None:
    port = await free_port()
    await nursery.start(services(ControllerConfiguration(webhook=Webhook(port=port, address="127.0.0.1"))).webhook)
    assert await asked(port, "POST /validate HTTP/1.1\r\nContent-Type: application/json", b"{}") == ""


@pytest.mark.parametrize("usable", [True, False])
async def test_metrics_say_when_the_certificate_ends(nursery: trio.Nursery, usable: bool) -> None:
    ends = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    issued = trustme.CA().issue_cert("controller-webhook.intel-gpu-dra.svc", not_after=ends)
    texts = (issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()) if usable else ()
    metrics = ControllerMetrics()
    made = services(ControllerConfiguration(webhook=Webhook(port=await free_port(), address="127.0.0.1")), *texts, metrics=metrics)
    await nursery.start(made.webhook)
    made.expose()
    name = 'intel_gpu_dra_certificate_expiry_timestamp_seconds{service="webhook"} '
    [told] = [line.removeprefix(name) for line in metrics.exposition().decode().splitlines() if line.startswith(name)]
    assert float(told) == (ends.timestamp() if usable else 0)
