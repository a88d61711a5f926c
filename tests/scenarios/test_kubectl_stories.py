"""`kubectl intel-gpu` beside the shipped daemons: what it tells of a cluster that they run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from nursery_apps.kubectl import __main__ as program
from tests.fakes import plugin_process
from tests.fakes.classic_programs import programs
from tests.fakes.plugin_process import SETTINGS
from tools.simcluster.kinds import SLICE

pytestmark = pytest.mark.slow

VFS = "sriov: {mode: fixed, layouts: [{select: {pciId: '0xe211'}, vfs: [{profile: fair-share, count: 4}]}]}\n"
CARD = "0000:18:00.0"
NAME = "0000-18-00-0-0xe211"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded."""
    monkeypatch.setenv("COLUMNS", "200")


class Kubectl:
    """The command, in a thread, for a kubeconfig."""

    def __init__(self, kubeconfig: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._kubeconfig, self._capsys = kubeconfig, capsys

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        with trio.fail_after(30):
            ended = await trio.to_thread.run_sync(partial(program.main, ["--kubeconfig", self._kubeconfig, *arguments]))
        said = self._capsys.readouterr()
        assert ended == code, said
        return said.out + said.err

    async def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(await self(*arguments, "-o", "json", code=code))


async def test_a_cut_card_its_holders_and_a_card_that_fell_ill(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(f"{SETTINGS}{VFS}health: {{period: 1s, holdDown: 1s, quiet: 2s, effects: {{failed: NoSchedule}}}}\n")
        await here.start()
        kubectl = Kubectl(here.cluster.kubeconfig_path, capsys)
        here.cluster.create_claim("part", device_class="gpu-vf.intel.com")
        here.cluster.create_pod("encoder", claims={"gpu": "part"})
        await here.cluster.wait_pod("encoder", deadline=20)
        assert "it runs on node1" in await kubectl("why", "encoder")
        cards = (await kubectl.json("list"))["nodes"][0]["cards"]
        [held] = [vf for card in cards for vf in card["vfs"] if vf["holders"]]
        assert held["holders"][0]["pods"] == ["encoder"]
        card = held["pci"].rpartition(".")[0] + ".0"
        assert "encoder" in await kubectl("who", card, code=1), "nobody has the whole card, and who keeps it from others is said"

        whole = [{"cel": {"expression": f'device.attributes["gpu.intel.com"].pciAddress == "{card}"'}}]
        here.cluster.create_claim("whole", selectors=whole)
        here.cluster.create_pod("trainer", claims={"gpu": "whole"})
        await here.cluster.wait_event("trainer", "FailedScheduling")
        told = (await kubectl.json("why", "trainer", code=1))["explanation"]
        assert "of counter" in told["summary"] and "held by claim default/part of pod encoder" in told["summary"]
        assert told["cure"] == "wait until pod encoder in namespace default ends, or delete it"

        ill = next(each["pci"] for each in cards if each["pci"] != card)
        await here.simulate(op="heat", bdf=ill, celsius=140)

        def hot(slices: list[dict[str, Any]]) -> bool:
            return any(
                taint["key"].endswith("/temperature")
                for s in slices
                for d in s["spec"].get("devices") or ()
                for taint in d.get("taints") or ()
            )

        await here.cluster.wait(SLICE, hot, "a hot card", deadline=20)
        taint = "gpu.intel.com/temperature=failed:NoSchedule by the driver"
        assert taint in await kubectl("list", code=1)
        assert f"× {taint}" in await kubectl("map")
        page = tmp_path / "map.html"
        await kubectl("map", "--html", str(page))
        assert "gpu.intel.com/temperature" in page.read_text()


@pytest.mark.parametrize("release", ["1.28", "1.30"])
async def test_classic_dra(release: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with programs(release) as here:
        await here.start_controller("controller")
        for node in ("node1", "node2"):
            await here.start_plugin(node)
        await here.wait_ready("node1", "node2")
        kubectl = Kubectl(here.cluster.kubeconfig_path, capsys)
        here.claim("share", of_class="intel-gpu-shared", memory=4000, millicores=300)
        here.claim("part", type="vf", memory=3500)
        here.claim("many", count=6)
        for claim in ("share", "part", "many"):
            here.pod(claim, claim)
            await here.cluster.wait_pod(claim, deadline=30)
        listed = await kubectl("list")
        assert "default/share (claim share) [memory 4000Mi, millicores 300]" in listed
        assert "default/part (claim part)" in listed and listed.count("default/many (claim many)") == 6
        [whole] = [
            card
            for node in (await kubectl.json("list"))["nodes"]
            for card in node["cards"]
            if node["name"] == here.handle("many").node
            and card["whole"]
            and card["pci"] == here.handle("many").parts[0].uid.partition("-")[0]  # type: ignore[union-attr]
        ]
        assert whole["whole"]["holders"][0]["claim"] == "many"
        assert "many" in await kubectl("who", f"{here.handle('many').node}/{whole['pci']}")  # type: ignore[union-attr]

        here.claim("more", count=7)
        here.pod("more", "more")
        await here.cluster.wait_event("more", "NoSuitableNode", deadline=20)
        told = (await kubectl.json("why", "more", code=1))["explanation"]
        [claim] = told["claims"]
        assert {node["node"]: node["fits"] for node in claim["requests"][0]["nodes"]} == {"node1": False, "node2": False}
        assert "7 of a whole GPU wanted" in told["summary"] and any("NoSuitableNode" in event for event in told["events"])
        assert "held by claim default/many of pod many" in await kubectl("why", "claim/more", code=1)

        here.claim("wrong", millicores=300)
        assert "spec.millicores is for type gpu of a shared class" in await kubectl("why", "claim/wrong", code=1)
        here.cluster.create_resource_claim("classless", "nowhere")
        assert "there is no ResourceClass nowhere" in await kubectl("why", "claim/classless", code=1)

        assert await here.terminate("node1") == 0
        assert "its GpuAllocationState is NotReady" in await kubectl("list", code=1)
        assert "its GpuAllocationState is NotReady" in await kubectl("why", "more", code=1)
