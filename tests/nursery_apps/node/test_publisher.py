from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dra import slice_contents, slices
from dra.devices import Gpu
from dra.names import Bdf, NodeName
from dra.pool import Effect, Taint
from dra.slices import Desired
from nursery_apps.latest import Latest
from nursery_apps.node import served_api
from nursery_apps.node.own_node import OwnNode
from nursery_apps.node.publisher import Publisher
from nursery_apps.node.served_api import Offer
from nursery_apps.seams import ApiError, Conflict, Forbidden, Invalid, ServedApi, Unavailable
from tests.fakes.kube_api import ALL_PLURALS, FakeKubeApi, until

NODE = NodeName("n1")
GPU = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56c0", memory_bytes=16 << 30)
OTHER = Gpu(bdf=Bdf("0000:04:00.0"), device="0x56c0", memory_bytes=16 << 30)
SICK = Taint("gpu.intel.com/wedged", Effect.NO_EXECUTE)


def wanted(*gpus: Gpu, sick: Iterable[Gpu] = ()) -> Desired:
    return slices.desired(NODE, gpus, taints={gpu.name: (SICK,) for gpu in sick})


class Setup:
    """A publisher on a fake API server."""

    def __init__(self, desired: Desired | None, *, version: str = "v1", server: str = "v1.34.3") -> None:
        self.api = FakeKubeApi(server_version=server, versions=(version,))
        self.offer: Latest[Offer] = Latest(served_api.choose(self.api.offer))
        self.node: Latest[OwnNode | None] = Latest(OwnNode("node-uid"))
        self.desired: Latest[Desired | None] = Latest(desired)
        self.findings: list[str] = []
        self.not_served = 0
        self.publisher = Publisher(
            self.api,
            NODE,
            offer=self.offer,
            node=self.node,
            desired=self.desired,
            random=lambda: 0.5,
            on_not_served=self._count,
            on_finding=lambda reason, text: self.findings.append(reason),
        )

    def _count(self) -> None:
        self.not_served += 1

    @property
    def stored(self) -> list[dict[str, Any]]:
        return self.api.of("resourceslices")

    @property
    def devices(self) -> list[str]:
        return [name for one in self.stored for name in slice_contents.devices_of(one)]

    @property
    def writes(self) -> int:
        return sum(verb in ("create", "replace", "delete") for verb, _, _ in self.api.calls)

    async def in_sync(self) -> None:
        await until(lambda: self.publisher.status.value.in_sync)


async def running(nursery: trio.Nursery, desired: Desired | None, **options: Any) -> Setup:
    setup = Setup(desired, **options)
    await nursery.start(setup.publisher.run)
    return setup


@pytest.mark.parametrize(
    ("version", "server"), [("v1", "v1.36.0"), ("v1beta2", "v1.33.0"), ("v1beta1", "v1.32.0"), ("v1alpha3", "v1.31.4")]
)
async def test_the_gpus_are_published_owned_by_the_node_and_then_it_is_quiet(
    nursery: trio.Nursery, autojump_clock: MockClock, version: str, server: str
) -> None:
    setup = await running(nursery, wanted(GPU, OTHER), version=version, server=server)
    await setup.in_sync()
    assert trio.current_time() < 0.1
    [one] = setup.stored
    assert one["apiVersion"] == f"resource.k8s.io/{version}"
    assert one["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
    assert setup.devices == [GPU.name, OTHER.name]
    await trio.sleep(600)
    assert setup.writes == 1
    status = setup.publisher.status.value
    assert (status.generation, status.slices, status.devices, status.writes, status.error) == (1, 1, 2, 1, None)


async def test_no_gpus_are_published_as_an_empty_slice_but_not_before_the_hardware_was_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    setup = await running(nursery, None)
    await trio.sleep(60)
    assert not setup.stored and "hardware" in (setup.publisher.status.value.error or "")
    setup.desired.set(wanted())
    await setup.in_sync()
    assert len(setup.stored) == 1 and not setup.devices


async def test_a_change_after_a_quiet_time_is_written_at_once_and_a_burst_in_batches(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    setup = await running(nursery, wanted(GPU))
    await setup.in_sync()
    await trio.sleep(100)
    since = trio.current_time()
    setup.desired.set(wanted(GPU, OTHER))
    await until(lambda: len(setup.devices) == 2)
    assert trio.current_time() - since <= 0.1
    for number in range(100):
        setup.desired.set(wanted(msgspec.structs.replace(GPU, numa=number), OTHER))
        await trio.sleep(0.01)
    await until(
        lambda: (
            {"int": 99}
            in [content["attributes"].get("numaNode") for one in setup.stored for content in slice_contents.devices_of(one).values()]
        )
    )
    assert setup.writes <= 8, "one at once, then four a second"
    assert trio.current_time() - since < 5


async def test_what_is_wiped_comes_back_within_seconds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = await running(nursery, wanted(GPU))
    await setup.in_sync()
    await trio.sleep(30)
    for _ in range(3):
        setup.api.remove("resourceslices", setup.stored[0]["metadata"]["name"])
        since = trio.current_time()
        await until(lambda: bool(setup.stored))
        assert trio.current_time() - since < 10


async def test_what_somebody_edits_is_set_right_but_a_fight_slows_down(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = await running(nursery, wanted(GPU))
    await setup.in_sync()

    async def enemy() -> None:
        while True:
            edited = copy.deepcopy(setup.stored[0])
            edited["spec"]["devices"] = []
            setup.api.put("resourceslices", edited)
            await until(lambda: bool(setup.devices))

    with trio.move_on_after(600):
        await enemy()
    assert 10 < setup.writes < 60
    await until(lambda: bool(setup.devices), seconds=31)


async def test_other_nodes_and_other_drivers_are_left_alone(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = Setup(wanted(GPU))
    for name, driver, node in (("a", "gpu.intel.com", "n2"), ("b", "gpu.example.com", "n1")):
        setup.api.put("resourceslices", {"metadata": {"name": name}, "spec": {"driver": driver, "nodeName": node, "pool": {"name": node}}})
    before = setup.stored
    await nursery.start(setup.publisher.run)
    await setup.in_sync()
    assert [one for one in setup.stored if one["metadata"]["name"] in ("a", "b")] == before


async def test_a_recreated_node_becomes_the_owner(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = await running(nursery, wanted(GPU))
    await setup.in_sync()
    setup.node.set(OwnNode("node-uid", deleted=True))
    await until(lambda: not setup.publisher.status.value.in_sync)
    setup.node.set(OwnNode("new-uid"))
    await until(lambda: setup.stored[0]["metadata"]["ownerReferences"][0]["uid"] == "new-uid")


@pytest.mark.parametrize(
    "error",
    [
        Conflict(409, "Conflict", "modified"),
        Unavailable(0, "Timeout", "no answer"),
        Forbidden(403, "Forbidden", "no"),
        Invalid(422, "Invalid", "bad"),
    ],
)
async def test_trouble_is_told_and_overcome(nursery: trio.Nursery, autojump_clock: MockClock, error: ApiError) -> None:
    setup = Setup(wanted(GPU))
    setup.api.failures += [("create", error)] * 3
    await nursery.start(setup.publisher.run)
    await until(lambda: setup.publisher.status.value.error == str(error))
    await setup.in_sync()
    assert setup.devices == [GPU.name]


async def test_a_create_whose_answer_was_lost_is_not_repeated(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = Setup(wanted(GPU))
    real = setup.api.create

    async def lossy(what: Any, body: dict[str, Any], **options: Any) -> Any:
        await real(what, body, **options)
        setup.api.create = real  # type: ignore[method-assign]
        raise Unavailable(0, "Timeout", "no answer")

    setup.api.create = lossy  # type: ignore[method-assign]
    await nursery.start(setup.publisher.run)
    await setup.in_sync()
    assert len(setup.stored) == 1 and setup.writes == 1


def drop_taints(plural: str, body: dict[str, Any]) -> None:
    for content in slice_contents.devices_of(body).values():
        content.pop("taints", None)
    for device in body.get("spec", {}).get("devices", []):
        device.pop("taints", None)


async def test_a_tainted_gpu_is_published_with_its_taint(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = await running(nursery, wanted(GPU, OTHER, sick=[OTHER]))
    await setup.in_sync()
    assert [bool(content.get("taints")) for one in setup.stored for content in slice_contents.devices_of(one).values()] == [False, True]
    assert setup.publisher.status.value.withdrawn == ()


@pytest.mark.parametrize("probe", [True, False])
async def test_where_taints_are_dropped_the_sick_gpu_is_withdrawn_and_it_is_said_once(
    nursery: trio.Nursery, autojump_clock: MockClock, probe: bool
) -> None:
    setup = Setup(wanted(GPU, OTHER), version="v1beta1", server="v1.33.2")
    setup.api.on_store = drop_taints
    await nursery.start(setup.publisher.run)
    await setup.in_sync()
    if not probe:
        setup.api.failures.append(("create", Invalid(400, "BadRequest", "admission webhook does not support dry run")))
    setup.desired.set(wanted(GPU, OTHER, sick=[OTHER]))
    await until(lambda: setup.publisher.status.value.withdrawn == (OTHER.name,))
    assert setup.devices == [GPU.name]
    await trio.sleep(600)
    assert setup.findings == ["TaintsNotSupported"]
    assert setup.writes <= 8, "one at once, then four a second"
    setup.desired.set(wanted(GPU, OTHER))
    await until(lambda: setup.devices == [GPU.name, OTHER.name])


async def test_whatever_else_the_server_keeps_back_is_said_once_and_not_fought_over(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    setup = Setup(wanted(GPU))

    def forgetful(plural: str, body: dict[str, Any]) -> None:
        del body["spec"]["devices"][0]["attributes"]["tiles"]

    setup.api.on_store = forgetful
    await nursery.start(setup.publisher.run)
    await setup.in_sync()
    await trio.sleep(7200)
    assert setup.writes == 1 and setup.findings == ["FieldsDropped"]
    assert [one.field for one in setup.publisher.status.value.dropped] == ["attributes.tiles"]


async def test_dra_switched_off_is_told_and_switched_on_is_used(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    setup = Setup(wanted(GPU))
    setup.offer.set(served_api.choose(ServedApi("v1.33.0", ())))
    await nursery.start(setup.publisher.run)
    await until(lambda: "serves no ResourceSlices" in (setup.publisher.status.value.error or ""))
    setup.offer.set(served_api.choose(ServedApi("v1.34.0", (("v1", ALL_PLURALS),))))
    await setup.in_sync()


async def test_an_api_version_that_goes_away_under_us_is_reported_and_the_next_one_used(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    setup = await running(nursery, wanted(GPU), version="v1beta1", server="v1.33.0")
    await setup.in_sync()
    setup.api.offer = ServedApi("v1.34.0", (("v1", ALL_PLURALS),))
    setup.api.cut()
    await until(lambda: setup.not_served > 0)
    setup.offer.set(served_api.choose(setup.api.offer))
    setup.desired.set(wanted(GPU, OTHER))
    await until(lambda: setup.devices == [GPU.name, OTHER.name])
    assert setup.stored[0]["apiVersion"] == "resource.k8s.io/v1"


async def test_slices_stay_when_the_program_ends(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        setup = await running(nursery, wanted(GPU))
        await setup.in_sync()
        nursery.cancel_scope.cancel()
    assert setup.devices == [GPU.name]


moves = st.one_of(
    st.tuples(st.just("want"), st.lists(st.sampled_from([GPU, OTHER]), unique_by=lambda gpu: gpu.bdf), st.booleans()),
    st.tuples(st.sampled_from(["wipe", "edit", "cut", "expire", "forget node", "pass"])),
    st.tuples(
        st.just("fail"),
        st.sampled_from(["create", "replace", "delete", "list", "watch", "*"]),
        st.sampled_from(
            [Conflict(409, "Conflict", "c"), Unavailable(0, "Timeout", "t"), Invalid(422, "Invalid", "i"), Forbidden(403, "Forbidden", "f")]
        ),
    ),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(moves, st.sampled_from([0.0, 0.01, 1.0, 100.0])), max_size=12), st.booleans())
def test_after_any_history_the_slices_are_right_and_it_is_quiet(history: list[tuple[Any, float]], gate_off: bool) -> None:
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            setup = Setup(wanted(GPU))
            if gate_off:
                setup.api.on_store = drop_taints
            await nursery.start(setup.publisher.run)
            for move, pause in history:
                match move:
                    case ("want", gpus, sick):
                        setup.desired.set(wanted(*gpus, sick=gpus[:1] if sick else ()))
                    case ("wipe",):
                        for one in setup.stored:
                            setup.api.remove("resourceslices", one["metadata"]["name"])
                    case ("edit",):
                        for one in setup.stored:
                            setup.api.put("resourceslices", {**copy.deepcopy(one), "spec": {**one["spec"], "devices": []}})
                    case ("cut",):
                        setup.api.cut()
                    case ("expire",):
                        setup.api.expire()
                    case ("forget node",):
                        setup.node.set(OwnNode(f"uid-{setup.api.version}"))
                    case ("fail", verb, error):
                        setup.api.failures.append((verb, error))
                await trio.sleep(pause)
            setup.api.failures.clear()
            await trio.sleep(120)
            desired = setup.desired.value
            assert desired is not None
            pool = desired.pool.without_taints() if gate_off else desired.pool
            assert setup.devices == [device.name for device in pool.devices]
            [one] = setup.stored
            assert setup.node.value is not None
            assert one["metadata"]["ownerReferences"][0]["uid"] == setup.node.value.uid
            assert [bool(content.get("taints")) for content in slice_contents.devices_of(one).values()] == [
                bool(one.taints) for one in pool.devices
            ]
            before = setup.writes
            await trio.sleep(600)
            assert setup.writes == before and setup.publisher.status.value.in_sync
            nursery.cancel_scope.cancel()

    trio.run(story, clock=MockClock(autojump_threshold=0))
