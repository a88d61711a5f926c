"""Whole stories of GPUs that fall ill and get well: the shipped plugin as a process on a fake machine, and a cluster around it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.fakes import plugin_process
from tests.fakes.plugin_process import SETTINGS, Node
from tools.simcluster.kinds import CLAIM, EVENT, POD, SLICE

pytestmark = pytest.mark.slow

CARD = "0000:18:00.0"
NAME = "0000-18-00-0-0xe211"
SELECTED = [{"cel": {"expression": f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"'}}]
QUICK = "period: 1s, holdDown: 1s, quiet: 2s, quietMost: 2s"
SOON = 20.0
"""Seconds; what takes this long on a loaded machine has failed."""


def taints(slices: list[dict[str, Any]]) -> dict[str, str]:
    return {
        taint["key"].removeprefix("gpu.intel.com/"): taint["effect"]
        for item in slices
        for device in item["spec"].get("devices") or ()
        if device["name"] == NAME
        for taint in device.get("taints") or ()
    }


async def tainted(here: Node, *keys: str) -> None:
    def so(slices: list[dict[str, Any]]) -> bool:
        there = any(device["name"] == NAME for item in slices for device in item["spec"].get("devices") or ())
        return there and taints(slices).keys() == set(keys)

    await here.cluster.wait(SLICE, so, f"{NAME} with the taints {keys}", deadline=SOON)


async def said(here: Node, reason: str) -> None:
    await here.cluster.wait(EVENT, lambda events: any(event["reason"] == reason for event in events), reason, deadline=SOON)


async def on_the_card(here: Node, pod: str) -> None:
    here.cluster.create_claim(pod, template=True, selectors=SELECTED)
    here.cluster.create_pod(pod, templates={"gpu": pod})


async def test_a_gpu_that_fails_evicts_its_pod_and_is_given_away_again_when_it_is_well() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(SETTINGS + f"health: {{{QUICK}}}\n")
        await here.start()
        await tainted(here)
        await on_the_card(here, "a")
        await here.cluster.wait_pod("a", deadline=SOON)
        await here.simulate(op="wedge", bdf=CARD)
        await tainted(here, "wedged")
        await here.cluster.wait_pod_gone("a", deadline=SOON)
        await on_the_card(here, "b")
        await here.cluster.wait_event("b", "FailedScheduling", deadline=SOON)
        await here.simulate(op="unwedge", bdf=CARD)
        await here.cluster.wait_pod("b", deadline=SOON)
        for reason in ("GPUFailed", "GPUHealthy"):
            await said(here, reason)
        here.cluster.delete_pod("b")
        await here.cluster.wait_pod_gone("b", deadline=SOON)


async def test_a_hot_gpu_is_told_of_in_its_pods_status_and_the_pod_stays_if_it_is_so_set() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(SETTINGS + f"health: {{{QUICK}, effects: {{failed: NoSchedule}}}}\n")
        await here.start()
        await on_the_card(here, "a")
        await here.cluster.wait_pod("a", deadline=SOON)

        async def reads(word: str) -> None:
            def so(pods: list[dict[str, Any]]) -> bool:
                found = [
                    resource.get("health")
                    for status in pods[0].get("status", {}).get("containerStatuses") or ()
                    for entry in status.get("allocatedResourcesStatus") or ()
                    for resource in entry["resources"]
                ]
                return found == [word]

            await here.cluster.wait(POD, so, f"a pod whose GPU is {word}", deadline=SOON)

        await reads("Healthy")
        await here.simulate(op="heat", bdf=CARD, celsius=140)
        await reads("Unhealthy")
        await tainted(here, "temperature")
        await here.simulate(op="heat", bdf=CARD, celsius=50)
        await reads("Healthy")
        await tainted(here)
        here.cluster.delete_pod("a")
        await here.cluster.wait_pod_gone("a", deadline=SOON)


async def test_a_claim_says_whether_its_gpu_can_be_used() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(SETTINGS + f"health: {{{QUICK}, effects: {{failed: NoSchedule}}}}\n")
        await here.start()
        here.cluster.create_claim("c", selectors=SELECTED)
        here.cluster.create_pod("p", claims={"gpu": "c"})
        await here.cluster.wait_pod("p", deadline=SOON)

        async def ready(word: str) -> None:
            def so(claims: list[dict[str, Any]]) -> bool:
                devices = claims[0]["status"].get("devices") or [{}]
                return [condition["status"] for condition in devices[0].get("conditions") or ()] == [word]

            await here.cluster.wait(CLAIM, so, f"a claim whose device is Ready: {word}", deadline=SOON)

        await ready("True")
        await here.simulate(op="wedge", bdf=CARD)
        await ready("False")
        await here.simulate(op="unwedge", bdf=CARD)
        await ready("True")
        here.cluster.delete_pod("p")
        await here.cluster.wait_pod_gone("p", deadline=SOON)


async def test_an_api_server_that_keeps_no_taints_is_not_offered_a_gpu_that_failed() -> None:
    async with plugin_process.node(kubernetes="1.32") as here:
        here.settings.write_text(SETTINGS + f"health: {{{QUICK}}}\n")
        await here.start()

        async def offered(count: int) -> None:
            def so(slices: list[dict[str, Any]]) -> bool:
                return sum(len(item["spec"].get("devices") or ()) for item in slices) == count

            await here.cluster.wait(SLICE, so, f"{count} GPUs", deadline=SOON)

        await offered(4)
        await here.simulate(op="heat", bdf=CARD, celsius=140)
        await offered(3)
        await here.simulate(op="heat", bdf=CARD, celsius=50)
        await offered(4)


async def test_a_plugin_killed_in_the_middle_goes_on_with_the_quiet_period() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(SETTINGS + "health: {period: 1s, holdDown: 1s, quiet: 8s, quietMost: 8s}\n")
        plugin = await here.start()
        await tainted(here)
        await here.simulate(op="aer", bdf=CARD, severity="fatal", count=1)
        await tainted(here, "pcie")
        await plugin.kill()
        began = trio.current_time()
        await here.start()
        await tainted(here, "pcie")
        await tainted(here)
        assert trio.current_time() - began < 8 + SOON


async def test_an_idle_wedged_card_is_bound_anew_if_it_is_so_set() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        here.settings.write_text(SETTINGS + f"health: {{{QUICK}, recovery: {{mode: rebind}}}}\n")
        await here.start()
        await tainted(here)
        await here.simulate(op="wedge", bdf=CARD)
        await tainted(here, "wedged")
        await said(here, "GPURecovered")
        await tainted(here)
        await on_the_card(here, "a")
        await here.cluster.wait_pod("a", deadline=SOON)
        here.cluster.delete_pod("a")
        await here.cluster.wait_pod_gone("a", deadline=SOON)
