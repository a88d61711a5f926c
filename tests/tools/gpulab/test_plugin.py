"""The shipped plugin on a mounted machine: real files, real errno, writes that really block, uevents that the kernel tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.fakes import plugin_process
from tests.fakes.plugin_process import SETTINGS, Node
from tests.tools.gpulab import labs
from tests.tools.gpulab.labs import Lab
from tools.simcluster.kinds import SLICE

CARD = "0000:4d:00.0"
CUT = SETTINGS + f"sriov: {{mode: fixed, layouts: [{{select: {{bdf: '{CARD}'}}, vfs: flex170_m4}}]}}\n"
MINE = f'device.attributes["gpu.intel.com"].pfPciAddress == "{CARD}"'


@pytest.fixture
def lab() -> Iterator[Lab]:
    with labs.serving("server-8x-flex170") as lab:
        yield lab


def vfs(lab: Lab) -> list[str]:
    return sorted(bdf for bdf in lab.simulate(op="state") if bdf.startswith(CARD[:8]) and bdf != CARD)


async def pod(here: Node, name: str, device_class: str, cel: str = MINE) -> None:
    here.cluster.create_claim(name, template=True, device_class=device_class, selectors=[{"cel": {"expression": cel}}])
    here.cluster.create_pod(name, templates={"gpu": name})
    await here.cluster.wait_pod(name, deadline=40)


async def until(true: object, seconds: float = 20) -> None:
    """The machine is another process: there is no event of it here."""
    with trio.fail_after(seconds):
        while not await trio.to_thread.run_sync(true):  # type: ignore[arg-type]
            pass


@pytest.mark.slow
async def test_vfs_are_cut_for_pods_through_real_files_and_gone_after_the_last_also_of_a_killed_plugin(lab: Lab) -> None:
    roots = ("--sysfs-root", f"{lab.files}/sys", "--dev-root", f"{lab.files}/dev")
    async with plugin_process.node(roots=roots, kubernetes="1.37") as here:
        here.settings.write_text(CUT)
        plugin = await here.start()
        await here.cluster.wait(SLICE, lambda slices: "flex170_m4" in str(slices), "planned VFs", deadline=20)
        await pod(here, "a", "gpu-vf.intel.com")
        assert len(vfs(lab)) == 4
        await plugin.kill()
        await here.start()
        await pod(here, "b", "gpu-vf.intel.com")
        for name in ("a", "b"):
            here.cluster.delete_pod(name)
        await until(lambda: vfs(lab) == [])
        lab.simulate(op="modprobe", driver="vfio-pci")
        await pod(here, "vm", "gpu-vfio.intel.com", f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"')
        assert lab.simulate(op="state")[CARD]["driver"] == "vfio-pci"
        here.cluster.delete_pod("vm")
        await until(lambda: lab.simulate(op="state")[CARD]["driver"] == "i915")
        await here.cluster.wait_pod_gone("vm", deadline=20)
        assert here.cdi_files == []
