"""What a kubelet does with a driver, over simcluster's and over a real one (`tools/cluster test`); the driver is on grpcio's C core."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.contracts.kubelet_worlds import WORLDS, World
from tests.fakes.tiny_plugin import TinyPlugin

PREPARE, UNPREPARE = "NodePrepareResources", "NodeUnprepareResources"


@pytest.fixture(params=WORLDS)
def opener(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[World]]:
    return WORLDS[request.param]


@pytest.fixture
async def world(opener: Callable[[], AbstractAsyncContextManager[World]]) -> AsyncIterator[World]:
    async with opener() as opened:
        yield opened


@pytest.fixture
async def plugin(world: World) -> AsyncIterator[TinyPlugin]:
    with world.plugin() as tiny:
        await tiny.until(lambda: tiny.verdicts, seconds=world.seconds)
        await world.offer("gpu-0", "gpu-1")
        yield tiny
        # Whatever is left prepared, a kubelet would ask of the next test's plugin.
        tiny.errors.clear()
        await world.no_pods()


async def test_a_pod_gets_its_device_and_gives_it_back(world: World, plugin: TinyPlugin) -> None:
    await world.claim("t", template=True)
    await world.pod("p", template="t", containers={"user": None})
    await world.running("p")
    [(method, [uid])] = plugin.calls
    assert method.endswith(f"/{PREPARE}")
    assert await world.given("p") == {"user": f"{uid}-gpu-0"}
    await world.delete("p")
    await world.gone("p")
    assert plugin.methods() == [PREPARE, UNPREPARE]
    await world.no_claims()


async def test_an_error_is_told_in_an_event_and_tried_again(world: World, plugin: TinyPlugin) -> None:
    plugin.errors = ["the GPU is on fire"]
    await world.claim("c")
    await world.pod("p", claim="c")
    assert "the GPU is on fire" in await world.event("p", "FailedPrepareDynamicResources")
    await world.running("p")


async def test_unprepare_is_repeated_until_it_succeeds(world: World, plugin: TinyPlugin) -> None:
    await world.claim("c")
    await world.pod("p", claim="c")
    await world.running("p")
    plugin.errors = ["busy", "busy"]
    await world.finish("p")
    await plugin.until(lambda: plugin.methods() == [PREPARE] + [UNPREPARE] * 3, seconds=world.seconds)


async def test_a_shared_claim_is_prepared_once_and_unprepared_with_the_last(world: World, plugin: TinyPlugin) -> None:
    await world.claim("c")
    for name in ("one", "two"):
        await world.pod(name, claim="c")
        await world.running(name)
    await world.delete("one")
    await world.gone("one")
    assert plugin.methods() == [PREPARE]
    await world.delete("two")
    await world.gone("two")
    assert plugin.methods() == [PREPARE, UNPREPARE]


async def test_only_the_containers_that_name_the_request_get_the_device(world: World, plugin: TinyPlugin) -> None:
    plugin.requests = ["gpu"]
    await world.claim("c")
    await world.pod("p", claim="c", containers={"all": None, "one": "gpu"})
    await world.running("p")
    assert set((await world.given("p")).values()) == {f"{plugin.calls[0][1][0]}-gpu-0"}


async def test_after_a_restart_slices_are_gone_and_pods_are_not_prepared_again(world: World, plugin: TinyPlugin) -> None:
    await world.claim("c")
    await world.pod("p", claim="c")
    await world.running("p")
    await world.restart_kubelet()
    await world.no_slices()
    await plugin.until(lambda: len(plugin.verdicts) == 2, seconds=world.seconds)
    assert plugin.methods() == [PREPARE]
    await world.delete("p")
    await world.gone("p")
    assert plugin.methods() == [PREPARE, UNPREPARE]


async def test_slices_of_a_lost_driver_are_wiped(world: World) -> None:
    with world.plugin() as tiny:
        await tiny.until(lambda: tiny.verdicts, seconds=world.seconds)
        await world.offer("gpu-0")
    await world.no_slices()


async def test_a_container_whose_cdi_file_no_runtime_takes_does_not_start(world: World, plugin: TinyPlugin) -> None:
    plugin.cdi_version = "9.9.9"
    await world.claim("c")
    await world.pod("p", claim="c")
    message = await world.event("p", "Failed")
    assert "unresolvable CDI devices" in message


async def test_a_claim_that_is_left_out_of_the_answer_fails_the_pod(world: World, plugin: TinyPlugin) -> None:
    plugin.devices = []
    await world.claim("c")
    await world.pod("p", claim="c")
    said = await world.event("p", "FailedPrepareDynamicResources")
    assert "skipped 1 ResourceClaims" in said or "left out 1 claims" in said, "the second up to 1.33"


async def test_a_useless_list_of_versions_is_refused(world: World) -> None:
    with world.plugin(versions=[]) as tiny:
        await tiny.until(lambda: tiny.verdicts, seconds=world.seconds)
        registered, why = tiny.verdicts[0]
        assert not registered and why


HEALTH = ["v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]


async def test_a_pods_status_says_what_the_driver_says_of_its_devices(world: World) -> None:
    if not world.tells_health:
        pytest.skip("this kubelet does not watch the health of devices")
    with world.plugin(versions=HEALTH) as tiny:
        tiny.say({"gpu-0": (1, "")})
        await tiny.until(lambda: tiny.verdicts, seconds=world.seconds)
        await world.offer("gpu-0", "gpu-1")
        await world.claim("c")
        await world.pod("p", claim="c", containers={"all": None, "one": "gpu"})
        await world.running("p")
        await world.health("p", {"all": [("claim:gpu", "Healthy", "")], "one": [("claim:gpu/gpu", "Healthy", "")]})
        tiny.say({"gpu-0": (2, "on fire"), "gpu-1": (1, "")})
        await world.health("p", {"all": [("claim:gpu", "Unhealthy", "on fire")], "one": [("claim:gpu/gpu", "Unhealthy", "on fire")]})
        tiny.say({"gpu-0": (1, "warm")})
        await world.health("p", {"all": [("claim:gpu", "Healthy", "warm")], "one": [("claim:gpu/gpu", "Healthy", "warm")]})
        assert len([method for method in tiny.methods() if method == "NodeWatchResources"]) == 1, "one stream for all of it"
        await world.no_pods()


async def test_a_health_stream_that_ends_is_opened_anew(world: World) -> None:
    if not world.tells_health:
        pytest.skip("this kubelet does not watch the health of devices")
    with world.plugin(versions=HEALTH) as tiny:
        tiny.say({"gpu-0": (2, "on fire")})
        await tiny.until(lambda: tiny.verdicts, seconds=world.seconds)
        await tiny.end_watches()
        await tiny.until(lambda: tiny.methods().count("NodeWatchResources") == 2, seconds=world.seconds)
