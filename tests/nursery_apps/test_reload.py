"""A changed settings file: what can be applied is, what cannot is said, and a bad file changes nothing."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing

from dra import settings_plan
from dra.devices import Gpu
from dra.names import Bdf, ClaimUid, DeviceName
from dra.settings import Logging, NodePluginConfiguration, Probes, Publish, Selector, SettingsInvalid
from dra.settings_plan import Plan
from nursery_apps import reload
from nursery_apps.reload import Reloader, Result
from tests.fakes.state_dir import MemoryStateDir

GPU = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56c0")
T = TypeVar("T")
DEFAULTS = NodePluginConfiguration()


class File:
    """Keeps the promise of `SettingsSource`."""

    def __init__(self, content: NodePluginConfiguration | str) -> None:
        self.content = content
        self.wake: Callable[[], object] = lambda: None

    def read(self) -> NodePluginConfiguration:
        if isinstance(self.content, str):
            raise SettingsInvalid(self.content)
        return self.content

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.wake = wake
        task_status.started()
        await trio.sleep_forever()


class Node:
    """A reloader, its file, and what it said."""

    def __init__(self, file: File | None) -> None:
        self.file = file
        self.in_use: dict[DeviceName, list[ClaimUid]] = {}
        self.state = MemoryStateDir()
        self.results: list[Result] = []
        self.in_force_when_told: list[NodePluginConfiguration] = []
        self.reloader = Reloader(DEFAULTS, file, plan=self._plan, state=self.state, run_blocking=_in_place, on_result=self._told)

    async def change(self, content: NodePluginConfiguration | str) -> None:
        assert self.file is not None
        self.file.content = content
        self.file.wake()
        await self.settle()

    async def settle(self) -> None:
        await trio.sleep(reload.SETTLE_SECONDS * 2)  # virtual

    def applied(self) -> NodePluginConfiguration:
        return msgspec.json.decode(self.state.files[reload.APPLIED_FILE], type=NodePluginConfiguration)

    def _plan(self, current: NodePluginConfiguration, wanted: NodePluginConfiguration) -> Plan:
        return settings_plan.plan(current, wanted, in_use=self.in_use, gpus=[GPU])

    def _told(self, result: Result) -> None:
        self.results.append(result)
        self.in_force_when_told.append(self.reloader.settings.value)


async def _in_place(work: Callable[[], T], /) -> T:
    await trio.lowlevel.checkpoint()
    return work()


@pytest.fixture
async def node(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> AsyncIterator[Node]:
    made = Node(File(DEFAULTS))
    await nursery.start(made.reloader.run)
    await made.settle()
    yield made


async def test_at_start_the_settings_in_force_are_noted_and_an_unchanged_file_is_no_news(node: Node) -> None:
    assert node.applied() == DEFAULTS
    assert node.results == []


async def test_a_file_that_changed_before_it_was_watched_is_noticed(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    late = Node(File(NodePluginConfiguration(grace_period="5s")))
    await nursery.start(late.reloader.run)
    await late.settle()
    assert late.reloader.settings.value.grace_period == "5s"


async def test_a_change_is_applied_told_and_noted(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await node.change(NodePluginConfiguration(logging=Logging(level="debug")))
    assert node.reloader.settings.value.logging.level == "debug"
    assert node.applied().logging.level == "debug"
    assert node.results == [Result("applied", ('apply logging.level: "info" -> "debug"',))]
    assert 'plan: apply logging.level: "info" -> "debug"' in caplog.messages


async def test_who_is_told_of_a_change_finds_it_in_force(node: Node) -> None:
    await node.change(NodePluginConfiguration(grace_period="5s"))
    assert [settings.grace_period for settings in node.in_force_when_told] == ["5s"]


async def test_a_bad_file_keeps_the_settings_and_says_so_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    await node.change(NodePluginConfiguration(grace_period="5s"))
    for _ in range(2):
        await node.change("s.yaml: unknown field `x`")
    assert node.reloader.settings.value.grace_period == "5s"
    assert node.applied().grace_period == "5s"
    assert [result.outcome for result in node.results] == ["applied", "invalid"]
    assert caplog.messages.count("s.yaml: unknown field `x`; the settings in force are kept") == 1


async def test_a_mended_file_is_read_again(node: Node) -> None:
    await node.change("s.yaml: broken")
    await node.change(NodePluginConfiguration(grace_period="5s"))
    assert [result.outcome for result in node.results] == ["invalid", "applied"]


async def test_a_gpu_in_use_stays_offered_and_the_refusal_names_its_holder(node: Node) -> None:
    node.in_use = {GPU.name: [ClaimUid("c-1")]}
    await node.change(NodePluginConfiguration(publish=Publish(exclude=(Selector(bdf=GPU.bdf),))))
    assert node.reloader.settings.value == DEFAULTS
    [result] = node.results
    assert result.outcome == "refused"
    assert f"{GPU.name} is held by claim c-1" in result.lines[0]


async def test_what_was_refused_is_applied_by_sighup_once_the_gpu_is_free(node: Node) -> None:
    node.in_use = {GPU.name: [ClaimUid("c-1")]}
    without = Publish(exclude=(Selector(bdf=GPU.bdf),))
    await node.change(NodePluginConfiguration(publish=without))
    node.in_use = {}
    node.reloader.hang_up()
    await node.settle()
    assert node.reloader.settings.value.publish == without
    assert [result.outcome for result in node.results] == ["refused", "applied"]


async def test_what_needs_a_restart_is_left_and_the_rest_applied(node: Node) -> None:
    await node.change(NodePluginConfiguration(probes=Probes(port=1), grace_period="5s"))
    assert node.reloader.settings.value == NodePluginConfiguration(grace_period="5s")
    assert node.results[0].outcome == "partly"


async def test_sighup_answers_even_if_nothing_changed(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node.reloader.hang_up()
    await node.settle()
    assert "plan: nothing changes" in caplog.messages
    assert node.results == [Result("unchanged", ("nothing changes",))]


async def test_sighup_without_a_file_says_that_there_is_none(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bare = Node(None)
    await nursery.start(bare.reloader.run)
    bare.reloader.hang_up()
    await bare.settle()
    assert caplog.messages == ["plan: nothing to reload: no settings file was given (--config)"]


async def test_a_full_disk_does_not_keep_settings_from_being_applied(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.state.fail = lambda operation, name: errno.ENOSPC
    await node.change(NodePluginConfiguration(grace_period="5s"))
    assert node.reloader.settings.value.grace_period == "5s"
    assert any("cannot note the settings in force" in message for message in caplog.messages)
