"""The same on Kubernetes 1.28 to 1.30: states and Leases of nodes are what tells how far it is."""

from __future__ import annotations

import pytest

from tests.fakes.classic_programs import NAMESPACE, Programs, programs
from tests.fakes.plugin_process import SETTINGS
from tools.simcluster.kinds import CLAIM, LEASE, Json

pytestmark = pytest.mark.slow

GOING = SETTINGS + "decommission: true\n"
OF_THE_MACHINE = {"simulated-machine.log", "simulator.sock", "dra-device-metadata", ".lock"}


async def states(here: Programs, wanted: dict[str, str]) -> None:
    """Until the nodes' states are these, by name."""
    kind = here.cluster.registry.kind("gpu.resource.intel.com/v1alpha2", "GpuAllocationState")

    def found(bodies: list[Json]) -> bool:
        return {body["metadata"]["name"]: body["status"] for body in bodies} == wanted

    await here.cluster.wait(kind, found, str(wanted), deadline=20)


def left(here: Programs, node: str) -> set[str]:
    from pathlib import Path

    layout = here.cluster.layout_of(node)
    state = {path.name for path in (Path(layout.kubelet) / "plugins" / "gpu.intel.com").iterdir()}
    return (state - OF_THE_MACHINE) | {path.name for path in Path(layout.cdi).iterdir()}


def leases(here: Programs) -> set[str]:
    return {body["metadata"]["name"] for body in here.cluster.store.all(LEASE, NAMESPACE)}


@pytest.mark.parametrize("release", ["1.28", "1.30"])
async def test_a_node_drains_with_its_vfs_is_clean_and_comes_back(release: str) -> None:
    async with programs(release, nodes=("node1",)) as here:
        await here.start_controller("controller")
        await here.start_plugin("node1")
        await here.wait_ready("node1")
        here.claim("vf", type="vf", memory=3500)
        here.pod("a", "vf")
        await here.cluster.wait_pod("a", deadline=30)
        here.settings.write_text(GOING)
        await states(here, {"node1": "NotReady"})
        assert not here.state("node1")["spec"]["allocatableDevices"] and len(here.nodes_in("a")) == 2
        await here.kill("node1")
        await here.start_plugin("node1")
        await states(here, {"node1": "NotReady"})
        here.cluster.delete_pod("a")
        await here.cluster.wait_pod_gone("a", deadline=30)
        await states(here, {})
        await here.cluster.wait(LEASE, lambda _bodies: leases(here) == {"gpu-controller"}, "the plugin's Lease gone", deadline=20)
        assert left(here, "node1") == set() and "taking" in here.log("node1")
        here.cluster.registry.delete(CLAIM, "vf", "default")
        await here.wait_no_claims()
        here.settings.write_text(SETTINGS)
        await here.wait_ready("node1")
        here.claim("next")
        here.pod("b", "next")
        await here.cluster.wait_pod("b", deadline=30)
