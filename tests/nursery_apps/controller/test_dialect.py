from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dra.kubernetes_releases import UnsupportedRelease
from nursery_apps.controller import dialect
from nursery_apps.controller.dialect import Dialect, DialectKeeper
from nursery_apps.seams import ServedApi, Unavailable
from tests.fakes.classic_cluster import until
from tests.fakes.kube_api import ALL_PLURALS, FakeKubeApi

CLASSIC = ("podschedulingcontexts", "resourceclaims", "resourceclaimtemplates", "resourceclasses")


@pytest.mark.parametrize(
    ("version", "resources", "expected"),
    [
        ("v1.28.15", (("v1alpha2", CLASSIC),), Dialect.CLASSIC),
        ("v1.30.14", (("v1alpha2", (*CLASSIC, "resourceslices")),), Dialect.CLASSIC),  # its slices are of another model
        ("v1.31.0", (("v1alpha3", (*ALL_PLURALS, "podschedulingcontexts")),), Dialect.STRUCTURED),
        ("v1.37.2", (("v1", ALL_PLURALS), ("v1alpha3", ("devicetaintrules",))), Dialect.STRUCTURED),
        ("v1.34.3", (("v1alpha3", ("devicetaintrules",)),), Dialect.OFF),
        ("v1.28.15", (), Dialect.OFF),
    ],
)
def test_what_a_server_offers_says_who_allocates(
    version: str, resources: tuple[tuple[str, tuple[str, ...]], ...], expected: Dialect
) -> None:
    spoken = dialect.of(ServedApi(version, resources))
    assert spoken.dialect is expected and (spoken.why is not None) == (expected is Dialect.OFF)


async def test_an_upgrade_is_noticed_and_a_silent_server_is_asked_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.offer = ServedApi("v1.30.14", (("v1alpha2", CLASSIC),))
    api.failures += [("served", Unavailable(0, "Unreachable", "connection refused"))] * 3
    keeper = DialectKeeper(api, lambda: 0.5)
    nursery.start_soon(keeper.run)
    await trio.testing.wait_all_tasks_blocked()
    assert keeper.error is not None and "connection refused" in keeper.error
    await until(lambda: keeper.spoken.value is not None)
    assert keeper.spoken.value is not None and keeper.spoken.value.dialect is Dialect.CLASSIC and keeper.error is None
    api.offer = ServedApi("v1.31.0", (("v1alpha3", ALL_PLURALS),))
    await trio.sleep(dialect.ASK_AGAIN_SECONDS)
    await until(lambda: keeper.spoken.value is not None and keeper.spoken.value.dialect is Dialect.STRUCTURED)


async def test_an_api_server_that_is_too_old_ends_the_controller_with_one_sentence() -> None:
    api = FakeKubeApi()
    api.offer = ServedApi("v1.27.3", (("v1alpha2", CLASSIC),))
    with pytest.raises(UnsupportedRelease, match=r"^the API server is v1\.27\.3, .*1\.28 and newer.*$"):
        await DialectKeeper(api, lambda: 0.5).run()


async def test_a_newer_one_is_remarked_on_once(nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    api = FakeKubeApi()
    api.offer = ServedApi("v1.38.0", (("v1", ALL_PLURALS),))
    keeper = DialectKeeper(api, lambda: 0.5)
    nursery.start_soon(keeper.run)
    await trio.sleep(3 * dialect.ASK_AGAIN_SECONDS)
    assert keeper.spoken.value is not None and keeper.spoken.value.dialect is Dialect.STRUCTURED
    assert len([line for line in caplog.messages if "unproven" in line]) == 1
