"""Taints by alerts, as the plugin reads them where there are no rules."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dra.names import NodeName
from nursery_apps.node.alert_taints import LOOK_AGAIN_SECONDS, AlertTaints
from nursery_apps.seams import Forbidden, Unavailable
from tests.fakes.gpu_states import CARD, UID, state
from tests.fakes.kube_api import FakeKubeApi, until


def taints(api: FakeKubeApi) -> AlertTaints:
    return AlertTaints(api, NodeName("n1"), namespace="ns", random=lambda: 0.5)


def store(api: FakeKubeApi, *reasons: str, node: str = "n1", namespace: str = "ns") -> None:
    tainted = {UID: {"reasons": dict.fromkeys(reasons, True)}} if reasons else {}
    api.put("gpuallocationstates", state(node, **tainted), namespace=namespace)


async def test_what_alerts_taint_and_heal_is_followed(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    api = FakeKubeApi()
    found = taints(api)
    nursery.start_soon(found.run)
    store(api, "GpuHot", node="n2")
    store(api, "GpuHot", namespace="other")
    store(api)
    store(api, "GpuHot")
    await until(lambda: found.tainted.value == {CARD}, seconds=60)
    api.cut()
    store(api)
    await until(lambda: not found.tainted.value, seconds=60)
    store(api, "GpuHot")
    await until(lambda: found.tainted.value == {CARD}, seconds=60)
    api.remove("gpuallocationstates", "n1", namespace="ns")
    await until(lambda: not found.tainted.value, seconds=60)


async def test_where_the_kind_is_not_installed_next_to_nothing_is_asked(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    api = FakeKubeApi()
    api.unserved.add("gpuallocationstates")
    found = taints(api)
    nursery.start_soon(found.run)
    await trio.sleep(86400)
    assert len(api.calls) <= 1 + 86400 / (LOOK_AGAIN_SECONDS / 2) and found.tainted.version == 0
    api.unserved.clear()
    store(api, "GpuHot")
    await until(lambda: found.tainted.value == {CARD}, seconds=LOOK_AGAIN_SECONDS)
    api.unserved.add("gpuallocationstates")
    api.cut()
    await until(lambda: not found.tainted.value, seconds=60)
    before = len(api.calls)
    await trio.sleep(3600)
    assert len(api.calls) - before <= 1 + 3600 / (LOOK_AGAIN_SECONDS / 2)


async def test_refusals_and_outages_change_nothing_that_is_known(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    api = FakeKubeApi()
    api.failures += [("list", Unavailable(0, "Unreachable", "no")), ("list", Forbidden(403, "Forbidden", "no"))]
    store(api, "GpuHot")
    found = taints(api)
    nursery.start_soon(found.run)
    await until(lambda: found.tainted.value == {CARD}, seconds=2 * LOOK_AGAIN_SECONDS)
    api.failures += [("watch", Unavailable(0, "Unreachable", "no")), ("list", Unavailable(0, "Unreachable", "no"))]
    api.cut()
    await trio.sleep(100)
    api.put("gpuallocationstates", {"metadata": {"name": "n1"}, "spec": {"taintedDevices": []}}, namespace="ns")
    await trio.sleep(100)
    assert found.tainted.value == {CARD} and found.tainted.version == 1
