from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from nursery_apps.mirror import Mirror
from nursery_apps.seams import Forbidden, Resource, Throttled, Unavailable
from tests.fakes.kube_api import FakeKubeApi, until

THINGS: Resource[dict[str, Any]] = Resource("v1", "things", dict)


def thing(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def names(mirror: Mirror[Any]) -> list[str]:
    return sorted(name for _, name in mirror.objects)


async def started(nursery: trio.Nursery, api: FakeKubeApi, **options: Any) -> Mirror[dict[str, Any]]:
    mirror = Mirror(api, THINGS, random=lambda: 0.5, **options)
    await nursery.start(mirror.run)
    return mirror


async def test_it_holds_what_the_server_holds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.put("things", thing("a"))
    mirror = await started(nursery, api)
    assert names(mirror) == ["a"] and mirror.error.value is None
    seen = mirror.changes.version
    api.put("things", thing("b"))
    api.remove("things", "a")
    await mirror.changes.wait_newer(seen)
    await until(lambda: names(mirror) == ["b"])


async def test_a_watch_that_ended_goes_on_where_it_was_without_a_new_list(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    mirror = await started(nursery, api)
    for name in ("a", "b"):
        api.cut()
        api.put("things", thing(name))
        await until(lambda name=name: name in names(mirror))
    assert [verb for verb, _, _ in api.calls].count("list") == 1


async def test_a_server_that_comes_back_with_older_data_is_believed(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.put("things", thing("a"))
    backup = api.backup()
    mirror = await started(nursery, api)
    api.put("things", thing("b"))
    await until(lambda: names(mirror) == ["a", "b"])
    api.restore(backup)
    api.failures.append(("watch", Unavailable(0, "Unreachable", "connection refused")))
    await until(lambda: names(mirror) == ["a"])
    api.put("things", thing("c"))
    await until(lambda: names(mirror) == ["a", "c"])


async def test_history_that_was_forgotten_is_listed_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.put("things", thing("a"))
    mirror = await started(nursery, api)
    await until(lambda: ("watch", "things", "") in api.calls)
    api.put("things", thing("b"))
    api.remove("things", "a")
    api.expire()
    await until(lambda: names(mirror) == ["b"])


async def test_refusals_are_shown_and_tried_again_ever_more_slowly(autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures += [("list", Forbidden(403, "Forbidden", "no"))] * 20
    async with trio.open_nursery() as nursery:
        mirror = Mirror(api, THINGS, random=lambda: 0.5)
        nursery.start_soon(mirror.run)
        await trio.sleep(120)
        assert mirror.error.value == "Forbidden (403): no"
        assert 6 <= len(api.calls) <= 12
        await until(lambda: mirror.error.value is None)
        nursery.cancel_scope.cancel()


async def test_a_server_that_asks_for_time_gets_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    api.failures.append(("list", Throttled(429, "TooManyRequests", "later", retry_after_seconds=17)))
    await started(nursery, api)
    assert trio.current_time() >= 17


async def test_an_old_event_does_not_undo_an_answer(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    mirror = await started(nursery, api)
    for number in (1, 2, 3):
        api.put("things", thing("a", number=number))
    mirror.adopt(api.of("things")[0])
    seen: list[int] = []

    async def look() -> None:
        while True:
            version = mirror.changes.version
            seen.append(mirror.objects["", "a"]["spec"]["number"])
            await mirror.changes.wait_newer(version)

    nursery.start_soon(look)
    api.put("things", thing("b"))
    await until(lambda: "b" in names(mirror))
    assert set(seen) == {3}


async def test_a_late_answer_does_not_bring_back_what_was_deleted_meanwhile(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    api = FakeKubeApi()
    mirror = await started(nursery, api)
    api.put("things", thing("a"))
    answer = api.of("things")[0]
    api.remove("things", "a")
    api.put("things", thing("b"))
    await until(lambda: names(mirror) == ["b"])
    mirror.adopt(answer)
    assert names(mirror) == ["b"]


async def test_a_version_that_is_not_served_is_reported(autojump_clock: MockClock) -> None:
    api, poked = FakeKubeApi(), trio.Event()
    gone: Resource[dict[str, Any]] = Resource("resource.k8s.io/v1beta1", "resourceslices", dict)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Mirror(api, gone, random=lambda: 0.5, on_not_served=poked.set).run)
        await poked.wait()
        nursery.cancel_scope.cancel()
