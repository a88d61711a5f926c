"""Whole stories of a node: the shipped plugin as a process, a control plane and a kubelet it knows only by their sockets."""

from __future__ import annotations

import pytest
import trio

from nursery_apps.node.health import stream
from tests.fakes import plugin_process
from tests.fakes.plugin_process import SETTINGS, Node
from tools.simcluster import health_streams, plugin_calls
from tools.simcluster.faults import Fault
from tools.simcluster.kinds import CLAIM, EVENT, SLICE
from tools.simcluster.plugin_calls import CallFailed

pytestmark = pytest.mark.slow


async def pod(here: Node, name: str, **request: object) -> list[str]:
    """Run a pod with a claim of its own; the device nodes it was given."""
    here.cluster.create_claim(name, template=True, **request)  # type: ignore[arg-type]
    here.cluster.create_pod(name, templates={"gpu": name})
    await here.cluster.wait_pod(name, deadline=20)
    return nodes(here, name)


def nodes(here: Node, name: str) -> list[str]:
    return sorted(
        node["path"]
        for container in here.cluster.injected(name).values()
        for node in container.device_nodes
        if "by-path" not in node["path"]
    )


async def gone(here: Node, *names: str) -> None:
    for name in names:
        here.cluster.delete_pod(name)
    for name in names:
        await here.cluster.wait_pod_gone(name, deadline=20)


async def published(here: Node, count: int) -> None:
    def devices(slices: list[dict[str, object]]) -> int:
        return sum(len(item["spec"].get("devices") or ()) for item in slices)  # type: ignore[attr-defined]

    await here.cluster.wait(SLICE, lambda slices: devices(slices) == count, f"{count} devices in slices", deadline=15)


@pytest.mark.parametrize("release", ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"])
async def test_a_pod_runs_on_every_release(release: str) -> None:
    async with plugin_process.node(kubernetes=release) as here:
        plugin = await here.start()
        await published(here, 4)
        assert len(await pod(here, "a")) == 2
        await gone(here, "a")
        assert here.cdi_files == []
        assert await plugin.terminate() == 0


@pytest.mark.parametrize(("release", "told"), [("1.31", False), ("1.32", False), ("1.33", True), ("1.35", True), ("1.37", True)])
async def test_a_claim_says_what_it_was_given_where_the_api_server_has_a_place_for_it(release: str, told: bool) -> None:
    async with plugin_process.node(kubernetes=release) as here:
        await here.start()
        await published(here, 4)
        here.cluster.create_claim("c")
        here.cluster.create_pod("p", claims={"gpu": "c"})
        await here.cluster.wait_pod("p", deadline=20)
        if told:
            await here.cluster.wait(CLAIM, lambda claims: all(claim["status"].get("devices") for claim in claims), deadline=20)
            status = here.cluster.claim("c")["status"]
            [result], [entry] = status["allocation"]["devices"]["results"], status["devices"]
            assert (entry["driver"], entry["pool"], entry["device"]) == (result["driver"], result["pool"], result["device"])
            assert entry["data"]["pciAddress"].replace(":", "-").replace(".", "-") in result["device"]
            assert [(condition["type"], condition["status"]) for condition in entry["conditions"]] == [("Ready", "True")]
        await gone(here, "p")
        here.cluster.create_pod("again", claims={"gpu": "c"})
        await here.cluster.wait_pod("again", deadline=20)
        await gone(here, "again")
        assert "devices" not in here.cluster.claim("c")["status"], "it went with the allocation"


@pytest.mark.parametrize("release", ["1.36", "1.37"])
async def test_who_watches_the_devices_health_does_not_hold_up_the_plugins_end(release: str) -> None:
    async with plugin_process.node(kubernetes=release) as here:
        plugin = await here.start()
        await published(here, 4)
        await pod(here, "a")
        [instance] = here.cluster.kubelet.registrar.instances("gpu.intel.com")
        assert health_streams.service(int(release[2:]), instance.announced) in stream.SERVICES
        told, watching = trio.Event(), plugin_calls.Connection(instance.endpoint)
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with pytest.raises(CallFailed, match="UNAVAILABLE"):
                    await plugin_calls.watch_health(watching, "v1.DRAResourceHealth", lambda _answer: told.set())

            nursery.start_soon(watch)
            await told.wait()
            before = trio.current_time()
            assert await plugin.terminate() == 0
            assert trio.current_time() - before < 5, "a stream is no call that has the grace"
        watching.close()
        await here.start()
        await gone(here, "a")


CARD = "0000:18:00.0"
CUT = SETTINGS + f"sriov: {{mode: fixed, layouts: [{{select: {{bdf: '{CARD}'}}, vfs: b60_n4}}]}}\n"
OF_THE_CARD = [{"cel": {"expression": f'device.attributes["gpu.intel.com"].pfPciAddress == "{CARD}"'}}]
THE_CARD = [{"cel": {"expression": f'device.attributes["gpu.intel.com"].pciAddress == "{CARD}"'}}]


async def is_refused(here: Node, name: str, **request: object) -> None:
    """A pod with such a claim finds nothing."""
    here.cluster.create_claim(name, template=True, **request)  # type: ignore[arg-type]
    here.cluster.create_pod(name, templates={"gpu": name})
    await here.cluster.wait_event(name, "FailedScheduling", deadline=20)


@pytest.mark.parametrize(
    ("release", "together"),
    [("1.31", False), ("1.32", False), ("1.33", False), ("1.34", False), ("1.35", False), ("1.36", True), ("1.37", True)],
)
async def test_a_card_is_cut_for_pods_on_every_release(release: str, together: bool) -> None:
    async with plugin_process.node(kubernetes=release) as here:
        here.settings.write_text(CUT)
        await here.start()
        await published(here, 3 + 4 + together)
        if not together:
            await here.cluster.wait(EVENT, lambda events: any(event["reason"] == "CountersNotSupported" for event in events), deadline=15)
        vf = {"device_class": "gpu-vf.intel.com", "selectors": OF_THE_CARD}
        nodes_of = [await pod(here, f"p{number}", **vf) for number in range(4)]
        assert len({node for found in nodes_of for node in found}) == 8
        await is_refused(here, "card", selectors=THE_CARD)
        await is_refused(here, "fifth", **vf)
        here.cluster.delete_pod("fifth")
        await gone(here, *(f"p{number}" for number in range(4)))
        if together:
            await here.cluster.wait_pod("card", deadline=20)
            assert f"{CARD}: taking 4 VFs away" in here.log.read_text()
            await gone(here, "card")
        assert here.cdi_files == []


async def test_a_gpu_is_shared_where_schedulers_count_and_exclusive_elsewhere() -> None:
    for release, many in (("1.37", 2), ("1.33", 1)):
        async with plugin_process.node("workstation-2xb580", kubernetes=release) as here:
            here.settings.write_text(SETTINGS + "sharing: [{select: {pciId: '0xe20b'}, policy: shares, shares: 2}]\n")
            await here.start()
            await published(here, 2)
            found = [await pod(here, f"p{number}") for number in range(2 * many)]
            assert len({tuple(one) for one in found}) == 2
            await is_refused(here, "too-many")
            await gone(here, "p0")
            await here.cluster.wait_pod("too-many", deadline=20)


async def test_pods_keep_their_gpus_when_the_plugin_dies_and_new_ones_get_others() -> None:
    async with plugin_process.node() as here:
        plugin = await here.start()
        first = await pod(here, "a")
        await plugin.kill()
        await here.start()
        second = await pod(here, "b")
        assert set(first).isdisjoint(second)
        await gone(here, "a", "b")
        assert here.cdi_files == []


async def test_a_pod_deleted_while_the_plugin_is_down_is_cleaned_up_when_it_is_back() -> None:
    async with plugin_process.node() as here:
        plugin = await here.start()
        await pod(here, "a")
        await plugin.kill()
        here.cluster.delete_pod("a")
        await here.start()
        await here.cluster.wait_pod_gone("a", deadline=20)
        assert here.cdi_files == []


async def test_slices_are_back_after_the_kubelet_wiped_them_at_its_restart() -> None:
    async with plugin_process.node() as here:
        await here.start()
        await published(here, 4)
        await here.cluster.kubelet.restart()
        await here.cluster.wait_plugin()
        await published(here, 4)


async def test_a_node_comes_back_from_a_reboot_with_its_pods() -> None:
    async with plugin_process.node() as here:
        plugin = await here.start()
        await pod(here, "a")
        await here.simulate(op="reboot", boot_id="22222222-0000-4000-8000-000000000002")
        await plugin.kill()
        await here.cluster.kubelet.reboot()
        await here.start()
        await here.cluster.wait_pod("a", deadline=20)
        assert len(here.cdi_files) == 1
        await gone(here, "a")
        assert here.cdi_files == []


async def test_a_rolling_update_leaves_no_gap() -> None:
    async with plugin_process.node("server-4x-flex140", kubernetes="1.34") as here:
        old = await here.start(pod_uid="11111111-1111-1111-1111-111111111111")
        await pod(here, "before")
        await here.start(pod_uid="22222222-2222-2222-2222-222222222222", registered=False)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(pod, here, f"during-{number}")
            assert await old.terminate() == 0
        await pod(here, "after")
        await published(here, 8)
        await gone(here, "before", "after", *(f"during-{number}" for number in range(4)))
        assert here.cdi_files == []


async def test_a_gpu_unplugged_in_use_evicts_its_pod_and_the_next_gets_another() -> None:
    async with plugin_process.node(kubernetes="1.37") as here:
        await here.start()
        await pod(here, "a")
        held = here.cluster.claims_of_pod("a")[0]["status"]["allocation"]["devices"]["results"][0]["device"]
        bdf = f"{held[:4]}:{held[5:7]}:{held[8:10]}.{held[11]}"
        await here.simulate(op="unplug", bdf=bdf)
        assert "gpu.intel.com/absent" in await here.cluster.wait_event(here.cluster.node, "GPUTainted")
        await here.cluster.wait_pod_gone("a", deadline=20)
        await published(here, 3)
        assert len(await pod(here, "b")) == 2


async def test_settings_are_reloaded_and_the_plan_is_told_in_an_event() -> None:
    async with plugin_process.node() as here:
        plugin = await here.start()
        await published(here, 4)
        here.settings.write_text(SETTINGS + "publish: {exclude: [{bdf: '0000:18:00.0'}]}\n")
        await published(here, 3)
        here.settings.write_text(SETTINGS + "publish: {exclude: [{bfd: '0000:18:00.0'}]}\n")
        plugin.hang_up()
        await here.cluster.wait(EVENT, lambda events: any(event["reason"] == "SettingsInvalid" for event in events), deadline=15)
        assert "did you mean `bdf`?" in plugin.log
        await published(here, 3)


async def test_a_force_deleted_pods_gpu_is_given_on_only_when_it_is_free() -> None:
    async with plugin_process.node("workstation-2xb580") as here:
        await here.start()
        await pod(here, "a")
        await pod(here, "b")
        here.cluster.delete_pod("a", grace_seconds=0)
        assert len(await pod(here, "c")) == 2
        await gone(here, "b", "c")
        assert here.cdi_files == []


async def test_a_wrong_claim_configuration_is_said_in_the_pods_event_in_one_line() -> None:
    config = [
        {"opaque": {"driver": "gpu.intel.com", "parameters": {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "monitr": True}}}
    ]
    async with plugin_process.node() as here:
        await here.start()
        here.cluster.create_claim("bad", template=True, config=config)
        here.cluster.create_pod("a", templates={"gpu": "bad"})
        text = await here.cluster.wait_event("a", "FailedPrepareDynamicResources", deadline=20)
        assert "unknown field `monitr`" in text and "\n" not in text
        assert await here.cluster.wait_event("a", "PrepareFailed") in text


async def test_killed_again_and_again_while_pods_come_and_go_nothing_is_left_over() -> None:
    async with plugin_process.node("server-4x-flex140") as here:
        plugin = await here.start()
        for life in range(4):
            names = [f"p{life}-{number}" for number in range(3)]
            for name in names:
                here.cluster.create_claim(name, template=True)
                here.cluster.create_pod(name, templates={"gpu": name})
            await here.cluster.wait_pod(names[0], deadline=20)
            await plugin.kill()
            plugin = await here.start()
            for name in names:
                await here.cluster.wait_pod(name, deadline=20)
            for name in names[:2]:
                here.cluster.delete_pod(name)
            await plugin.kill()
            plugin = await here.start()
            for name in names[:2]:
                await here.cluster.wait_pod_gone(name, deadline=20)
            await gone(here, names[2])
        assert here.cdi_files == []
        assert await plugin.terminate() == 0
        assert sorted(path.name for path in here.state.glob("*.sock")) == []


async def test_sigterm_waits_for_the_claims_at_work_no_longer_than_the_grace() -> None:
    async with plugin_process.node() as here:
        here.settings.write_text(SETTINGS + "gracePeriod: 1s\n")
        plugin = await here.start()
        slow = here.cluster.faults.add(
            Fault(delay_seconds=20, user_agent="intel-gpu-dra", verbs=("get",), resources=("resourceclaims",), times=1)
        )
        here.cluster.create_claim("a", template=True)
        here.cluster.create_pod("a", templates={"gpu": "a"})
        with trio.fail_after(10):
            while slow in here.cluster.faults.list:  # until the plugin has asked
                await trio.lowlevel.checkpoint()
        begun = trio.current_time()
        assert await plugin.terminate() == 0
        assert trio.current_time() - begun < 6


async def test_a_kubelet_that_is_too_old_ends_the_plugin_with_one_sentence() -> None:
    async with plugin_process.node(kubernetes="1.28", kubelet_version="v1.27.16") as here:
        plugin = await here.start(registered=False)
        with trio.fail_after(20):
            assert await plugin.process.wait() == 2
        [line] = plugin.log.splitlines()
        assert "the kubelet is v1.27.16" in line and "1.28 and newer" in line
