from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from nursery_apps.node import served_api
from nursery_apps.node.served_api import ServedApiKeeper
from nursery_apps.seams import ServedApi, Unavailable
from tests.fakes.kube_api import FakeKubeApi, until

Served = tuple[tuple[str, tuple[str, ...]], ...]
ALL = ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices")


@pytest.mark.parametrize(
    ("server", "resources", "sliced", "claimed"),
    [
        ("v1.31.4", (("v1alpha3", (*ALL, "podschedulingcontexts")),), "v1alpha3", "v1alpha3"),
        ("v1.32.0", (("v1beta1", ALL), ("v1alpha3", ALL)), "v1beta1", "v1beta1"),
        ("v1.33.1", (("v1beta1", ALL), ("v1beta2", ALL), ("v1alpha3", ("devicetaintrules",))), "v1beta2", "v1beta2"),
        ("v1.36.0", (("v1", ALL), ("v1beta2", ("devicetaintrules",)), ("v1alpha3", ("resourcepoolstatusrequests",))), "v1", "v1"),
    ],
)
def test_the_newest_version_with_the_kind_is_taken(server: str, resources: Served, sliced: str, claimed: str) -> None:
    offer = served_api.choose(ServedApi(server, resources))
    assert offer.why is None
    assert offer.slices is not None and offer.slices.group_version == f"resource.k8s.io/{sliced}"
    assert offer.claims is not None and offer.claims.group_version == f"resource.k8s.io/{claimed}"
    assert offer.slice_api is not None and offer.slice_api.release[1] == int(server.split(".")[1])


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ((), "switch on"),
        ((("v1alpha3", ("devicetaintrules",)),), "switch on"),
        ((("v1alpha2", ("podschedulingcontexts", "resourceclaims")),), "classic"),
    ],
)
def test_without_slices_there_is_a_reason(resources: Served, word: str) -> None:
    offer = served_api.choose(ServedApi("v1.30.0", resources))
    assert offer.slices is None and offer.claims is None and offer.slice_api is None
    assert offer.why is not None and word in offer.why and "v1.30.0" in offer.why


async def test_an_upgrade_is_noticed_within_minutes_and_at_once_when_poked(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi(server_version="v1.33.0", versions=())
    keeper = ServedApiKeeper(api, lambda: 0.5)
    await nursery.start(keeper.run)
    assert keeper.offer.value.slices is None and keeper.claims() is None
    api.offer = ServedApi("v1.33.0", (("v1beta1", ALL),))
    await until(lambda: keeper.offer.value.slices is not None, seconds=200)
    api.offer = ServedApi("v1.34.0", (("v1", ALL), ("v1beta1", ALL)))
    since = trio.current_time()
    keeper.poke()
    await until(lambda: keeper.offer.value.server_version == "v1.34.0")
    assert trio.current_time() - since < 10
    assert (claims := keeper.claims()) is not None and claims.group_version == "resource.k8s.io/v1"


async def test_a_poke_a_second_does_not_mean_a_question_a_second(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    keeper = ServedApiKeeper(api, lambda: 0.5)
    await nursery.start(keeper.run)
    for _ in range(60):
        keeper.poke()
        await trio.sleep(1)
    assert len(api.calls) <= 13


async def test_a_server_that_is_away_has_not_changed_its_mind(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    keeper = ServedApiKeeper(api, lambda: 0.5)
    await nursery.start(keeper.run)
    before = keeper.offer.version
    api.failures += [("served", Unavailable(0, "Unreachable", "connection refused"))] * 3
    keeper.poke()
    await until(lambda: not api.failures)
    assert keeper.offer.version == before


async def test_until_the_first_answer_the_reason_is_that_there_is_none(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures += [("served", Unavailable(0, "Unreachable", "connection refused"))] * 3
    keeper = ServedApiKeeper(api, lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await until(lambda: "refused" in (keeper.offer.value.why or ""))
        await until(lambda: keeper.offer.value.why is None)
        nursery.cancel_scope.cancel()


async def test_a_newer_server_is_remarked_on_once_and_served(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    api = FakeKubeApi(server_version="v1.38.0", versions=("v1",))
    keeper = ServedApiKeeper(api, lambda: 0.5)
    await nursery.start(keeper.run)
    await trio.sleep(3 * served_api.LOOK_AGAIN_SECONDS)
    assert keeper.offer.value.slices is not None and keeper.offer.value.why is None
    assert len([line for line in caplog.messages if "v1.38.0" in line and "unproven" in line]) == 1


def test_a_newer_server_that_has_left_every_known_version_behind_asks_for_a_newer_driver() -> None:
    offer = served_api.choose(ServedApi("v1.49.0", (("v2", ALL),)))
    assert offer.slices is None and offer.why is not None
    assert "v2" in offer.why and "upgrade the driver" in offer.why
