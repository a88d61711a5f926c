"""What a cluster still has of the driver, whichever DRA it speaks."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from nursery_apps.controller.dialect import Dialect, Spoken
from nursery_apps.controller.remnants import Remnants
from nursery_apps.seams import Forbidden
from tests.fakes.classic_cluster import NAMESPACE
from tests.fakes.kube_api import FakeKubeApi, until

STRUCTURED = Spoken(Dialect.STRUCTURED, "v1.37.2", "v1")
CLASSIC = Spoken(Dialect.CLASSIC, "v1.30.14")


def remnants(api: FakeKubeApi, spoken: Spoken) -> Remnants:
    return Remnants(api, spoken, namespace=NAMESPACE, random=lambda: 0.5, on_change=lambda: None)


def pod(api: FakeKubeApi, node: str, component: str, *, ready: bool = True) -> None:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    metadata = {"name": f"{component}-{node}", "labels": {"app.kubernetes.io/component": component}}
    api.put("pods", {"metadata": metadata, "spec": {"nodeName": node}, "status": status}, namespace=NAMESPACE)


def slice_of(node: str, devices: int, name: str) -> dict[str, Any]:
    spec = {"driver": "gpu.intel.com", "nodeName": node, "pool": {"name": node}, "devices": [{"name": "x"}] * devices}
    return {"metadata": {"name": name}, "spec": spec}


async def test_devices_of_a_node_are_those_of_all_its_slices(nursery: trio.Nursery) -> None:
    api = FakeKubeApi()
    for node, devices, name in (("n1", 2, "a"), ("n1", 3, "b"), ("n2", 0, "c")):
        api.put("resourceslices", slice_of(node, devices, name))
    pod(api, "n1", "node-plugin")
    pod(api, "n2", "node-plugin", ready=False)
    pod(api, "n1", "controller")
    seen = remnants(api, STRUCTURED)
    assert await seen.read(nursery) == []
    assert seen.devices() == {"n1": 5, "n2": 0}
    assert (seen.ready_nodes(), seen.unready_nodes()) == ({"n1"}, {"n2"})
    assert seen.controllers() == ["controller-n1"] and seen.held() == []
    api.remove("resourceslices", "a")
    await until(lambda: seen.devices() == {"n1": 3, "n2": 0})


async def test_with_classic_dra_it_is_the_nodes_states_that_tell(nursery: trio.Nursery) -> None:
    api = FakeKubeApi(versions=["v1alpha2"])
    body = {"metadata": {"name": "n1"}, "spec": {"allocatableDevices": {"0000-18-00-0-0xe211": {}}}}
    api.put("gpuallocationstates", body, namespace=NAMESPACE)
    seen = remnants(api, CLASSIC)
    assert await seen.read(nursery) == []
    assert seen.devices() == {"n1": 1} and seen.slices is None


async def test_what_may_not_be_read_is_named(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures = [("list", Forbidden(403, "Forbidden", "may not list"))] * 400
    unread = await remnants(api, STRUCTURED).read(nursery)
    assert [each.partition(" cannot be read: ")[0] for each in unread] == ["nodes", "pods", "resourceslices", "resourceclaims"]
