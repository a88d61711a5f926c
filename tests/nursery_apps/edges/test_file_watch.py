"""Changes of a file or directory are heard without looking."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from inotify_simple import INotify

from nursery_apps.edges import file_watch
from nursery_apps.edges.file_watch import InotifyWatch


class Woken:
    def __init__(self) -> None:
        self.event = trio.Event()

    def __call__(self) -> None:
        self.event.set()

    async def by(self, change: Callable[[], object]) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self.event = trio.Event()
        change()
        with trio.fail_after(5):
            await self.event.wait()


@pytest.fixture
def woken() -> Woken:
    return Woken()


async def test_a_file_that_is_written_replaced_or_removed(tmp_path: Path, nursery: trio.Nursery, woken: Woken) -> None:
    path = tmp_path / "settings.yaml"
    await nursery.start(InotifyWatch().file, str(path), woken)
    await woken.by(lambda: path.write_text("a"))
    (tmp_path / "new").write_text("b")
    await woken.by(lambda: os.rename(tmp_path / "new", path))
    await woken.by(path.unlink)


async def test_the_kubelets_swap_of_a_configmap(tmp_path: Path, nursery: trio.Nursery, woken: Woken) -> None:
    for name, text in (("..1", "old"), ("..2", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "settings.yaml"
    path.symlink_to("..data/settings.yaml")
    await nursery.start(InotifyWatch().file, str(path), woken)

    def swap() -> None:
        (tmp_path / "..data_tmp").symlink_to("..2")
        os.rename(tmp_path / "..data_tmp", tmp_path / "..data")

    await woken.by(swap)
    assert path.read_text() == "new"


async def test_a_directory_that_is_missing_at_first_and_is_made_anew(tmp_path: Path, nursery: trio.Nursery, woken: Woken) -> None:
    directory = tmp_path / "kubelet" / "plugins_registry"
    await nursery.start(InotifyWatch().watch, str(directory), woken)
    await woken.by(lambda: directory.mkdir(parents=True))
    await woken.by((directory / "x.sock").touch)
    await woken.by(lambda: shutil.rmtree(tmp_path / "kubelet"))
    await woken.by(lambda: directory.mkdir(parents=True))
    await woken.by((directory / "x.sock").touch)


async def test_what_is_appended_to_a_file_that_stays_open(tmp_path: Path, nursery: trio.Nursery, woken: Woken) -> None:
    with (tmp_path / "log").open("ab", buffering=0) as file:
        await nursery.start(InotifyWatch().appended, str(tmp_path / "log"), woken)
        await woken.by(lambda: file.write(b"a"))
        await woken.by(lambda: file.write(b"b"))


@pytest.mark.parametrize("way", ["watch", "appended"])
async def test_without_inotify_it_looks_at_a_slow_beat(
    way: str, tmp_path: Path, autojump_clock: trio.testing.MockClock, woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(**_: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(file_watch, "INotify", none_left)
    async with trio.open_nursery() as nursery:
        await nursery.start(getattr(InotifyWatch(), way), str(tmp_path), woken)
        begun = trio.current_time()
        await woken.event.wait()
        assert trio.current_time() - begun == file_watch.BEAT_SECONDS
        nursery.cancel_scope.cancel()


async def test_without_watches_left_it_looks_at_a_slow_beat_until_there_are_some(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    woken: Woken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(INotify, "add_watch", full)
            await nursery.start(InotifyWatch().watch, str(tmp_path), woken)
            assert f"cannot watch {tmp_path} (No space left on device): looking every 30 s instead" in caplog.messages
        await woken.event.wait()
        assert trio.current_time() >= file_watch.BEAT_SECONDS
        await woken.by((tmp_path / "x").touch)
        nursery.cancel_scope.cancel()
