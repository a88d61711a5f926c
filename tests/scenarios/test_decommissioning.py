"""A node from which the driver is to be removed: the shipped plugin drains it, leaves nothing, and comes back when that is taken back."""

from __future__ import annotations

import pytest
import trio

from tests.fakes import plugin_process
from tests.fakes.plugin_process import SETTINGS, Node, Plugin
from tools.simcluster.kinds import SLICE, Json

pytestmark = pytest.mark.slow

CARD = "0000:18:00.0"
CUT = SETTINGS + f"sriov: {{mode: fixed, keep: keep, make: eager, layouts: [{{select: {{bdf: '{CARD}'}}, vfs: b60_n4}}]}}\n"
GOING = "decommission: true\n"
OF_THE_MACHINE = {"simulated-machine.log", "simulator.sock", "dra.sock", "dra-device-metadata", ".lock"}
"""What a running plugin on a simulated machine has in its directory all the same."""
RELEASE = "1.36"
"""With counters: cards and VFs are offered both."""


def devices(slices: list[Json]) -> int:
    return sum(len(item["spec"].get("devices") or ()) for item in slices)


async def offered(here: Node, count: int) -> None:
    await here.cluster.wait(SLICE, lambda slices: devices(slices) == count and bool(slices), f"{count} devices", deadline=20)


async def drained(here: Node) -> None:
    """Slices are there, and empty."""
    await here.cluster.wait(SLICE, lambda slices: bool(slices) and not devices(slices), "empty slices", deadline=20)


async def clean(here: Node) -> None:
    await here.cluster.wait(SLICE, lambda slices: not slices, "no slices", deadline=20)


async def told(here: Node, reason: str, word: str) -> None:
    def is_told() -> bool:
        return any(each == reason and word in text for each, text in here.cluster.events(here.cluster.node))

    with trio.fail_after(15):
        await here.cluster.store.until(is_told)


async def run(here: Node, name: str, **request: object) -> None:
    here.cluster.create_claim(name, template=True, **request)  # type: ignore[arg-type]
    here.cluster.create_pod(name, templates={"gpu": name})
    await here.cluster.wait_pod(name, deadline=20)


async def end(here: Node, name: str) -> None:
    here.cluster.delete_pod(name)
    await here.cluster.wait_pod_gone(name, deadline=20)


def left(here: Node) -> set[str]:
    """Files of the driver on the node."""
    found = {path.name for path in here.state.iterdir()} if here.state.exists() else set()
    metadata = here.state / "dra-device-metadata"
    files = {path.name for path in metadata.iterdir()} if metadata.exists() else set()
    return {name for name in found - OF_THE_MACHINE if not name.endswith("-reg.sock")} | files | set(here.cdi_files)


async def vfs(here: Node) -> int:
    return int((await here.simulate(op="read", path=f"sys/bus/pci/devices/{CARD}/sriov_numvfs")).strip())


@pytest.mark.parametrize("release", ["1.31", "1.33", "1.34", "1.37"])
async def test_an_idle_node_is_clean_at_once_and_comes_back(release: str) -> None:
    async with plugin_process.node(kubernetes=release) as here:
        plugin = await here.start()
        await offered(here, 4)
        here.settings.write_text(SETTINGS + GOING)
        await clean(here)
        assert left(here) == set()
        await told(here, "Decommissioned", "nothing")
        here.settings.write_text(SETTINGS)
        await offered(here, 4)
        await told(here, "BackInService", "offered again")
        await run(here, "a")
        await end(here, "a")
        assert {"journal", "dra-kind", "applied-settings.json"} <= left(here)
        assert await plugin.terminate() == 0


async def test_a_running_claim_goes_on_and_is_waited_for_and_a_new_one_is_refused() -> None:
    async with plugin_process.node() as here:
        await here.start()
        await offered(here, 4)
        await run(here, "a")
        # Allocated before the setting and bound after it: what the kubelet asks for then is refused.
        here.settings.write_text(SETTINGS + GOING)
        await drained(here)
        await told(here, "Decommissioning", "claim default/a")
        here.cluster.create_claim("late", template=True)
        here.cluster.create_pod("late", templates={"gpu": "late"})
        await here.cluster.wait_event("late", "FailedScheduling", deadline=20)
        assert len(here.cdi_files) == 1 and len(here.cluster.injected("a")["main"].device_nodes) > 0
        await end(here, "a")
        await clean(here)
        assert left(here) == set()


async def going_with_a_vf(here: Node) -> Plugin:
    """A pod holds a VF of an eagerly cut card, and the driver is to be removed."""
    here.settings.write_text(CUT)
    plugin = await here.start()
    await offered(here, 8)
    selectors = [{"cel": {"expression": f'device.attributes["gpu.intel.com"].pfPciAddress == "{CARD}"'}}]
    await run(here, "vm", device_class="gpu-vf.intel.com", selectors=selectors)
    here.settings.write_text(CUT + GOING)
    await drained(here)
    assert await vfs(here) == 4
    return plugin


async def test_vfs_stay_while_one_is_held_then_all_go_and_come_back_when_the_setting_is_taken_back() -> None:
    async with plugin_process.node(kubernetes=RELEASE) as here:
        await going_with_a_vf(here)
        await told(here, "Decommissioning", f"4 VFs of {CARD}")
        await end(here, "vm")
        await clean(here)
        assert await vfs(here) == 0 and left(here) == set()
        here.settings.write_text(CUT)
        await offered(here, 8)


async def test_a_plugin_that_is_killed_on_the_way_comes_to_the_same_end() -> None:
    async with plugin_process.node(kubernetes=RELEASE) as here:
        plugin = await going_with_a_vf(here)
        await plugin.kill()
        plugin = await here.start()
        await drained(here)
        here.cluster.delete_pod("vm")
        await plugin.kill()
        plugin = await here.start()
        await here.cluster.wait_pod_gone("vm", deadline=20)
        await clean(here)
        assert await vfs(here) == 0 and left(here) == set()
        await plugin.kill()
        await here.start()
        await told(here, "Decommissioned", "nothing")
        assert here.cluster.slices() == [] and left(here) == set()


async def test_the_kubelet_that_wipes_slices_does_not_make_a_node_look_clean() -> None:
    async with plugin_process.node() as here:
        await here.start()
        await offered(here, 4)
        await run(here, "a")
        here.settings.write_text(SETTINGS + GOING)
        await drained(here)
        await here.cluster.kubelet.restart()
        await here.cluster.wait_plugin()
        await drained(here)
        await end(here, "a")
        await clean(here)


async def test_vfs_that_an_administrator_made_stay() -> None:
    theirs = "0000:2c:00.0"
    async with plugin_process.node("server-8x-flex170", kubernetes=RELEASE) as here:
        await here.start()
        await here.cluster.wait(SLICE, lambda slices: devices(slices) > 0, deadline=20)
        here.settings.write_text(SETTINGS + GOING)
        await clean(here)
        assert (await here.simulate(op="read", path=f"sys/bus/pci/devices/{theirs}/sriov_numvfs")).strip() == "4"


async def test_an_orderly_end_of_a_clean_node_takes_the_directories_along() -> None:
    async with plugin_process.node() as here:
        plugin = await here.start()
        await offered(here, 4)
        here.settings.write_text(SETTINGS + GOING)
        await clean(here)
        assert await plugin.terminate() == 0
        # The simulated machine's own log keeps the directory; on a real one nothing does.
        assert {path.name for path in here.state.iterdir()} <= {"simulated-machine.log", "simulator.sock", ".lock"}
