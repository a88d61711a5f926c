"""What every StateDir promises, over the real file system and over the double that tests cut the power of."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nursery_apps.edges.state_dir import RealStateDir
from nursery_apps.seams import StateDir
from tests.fakes.state_dir import MemoryStateDir


@pytest.fixture(params=["real", "memory"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDir]:
    if request.param == "memory":
        yield MemoryStateDir()
        return
    real = RealStateDir(str(tmp_path / "state"))
    yield real
    real.close()


def test_what_is_missing_reads_as_none(state: StateDir) -> None:
    assert state.read("nothing") is None
    assert state.stamp("nothing") is None
    state.remove("nothing")


def test_replace_then_read(state: StateDir) -> None:
    state.replace("a", b"one")
    state.replace("a", b"two", keep="a.old")
    assert (state.read("a"), state.read("a.old")) == (b"two", b"one")
    state.replace("a", b"three", keep="a.old")
    assert (state.read("a"), state.read("a.old")) == (b"three", b"two")
    assert state.list() == ["a", "a.old"]


def test_keep_without_an_old_content_keeps_nothing(state: StateDir) -> None:
    state.replace("a", b"one", keep="a.old")
    assert state.list() == ["a"]


def test_append_makes_and_grows_and_shows_in_the_stamp(state: StateDir) -> None:
    state.append("log", b"x\n")
    first = state.stamp("log")
    state.append("log", b"y\n")
    second = state.stamp("log")
    assert state.read("log") == b"x\ny\n"
    assert first is not None and second is not None
    assert first[0] == second[0] and second[1] == 4


def test_replacing_changes_the_stamp_even_at_equal_length(state: StateDir) -> None:
    state.replace("a", b"one")
    before = state.stamp("a")
    state.replace("a", b"two")
    assert state.stamp("a") != before


def test_remove_removes(state: StateDir) -> None:
    state.replace("a", b"one")
    state.remove("a")
    assert state.list() == []


def test_the_lock_can_be_taken_again(state: StateDir) -> None:
    for _ in range(2):
        with state.locked():
            state.replace("a", b"one")


def test_names_are_plain(tmp_path: Path) -> None:
    real = RealStateDir(str(tmp_path))
    for name in ("../escape", "a/b", "", ".."):
        with pytest.raises(ValueError, match="plain file name"):
            real.replace(name, b"")
    real.close()


def test_modes_are_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    real = RealStateDir(str(tmp_path))
    old = os.umask(0o077)
    try:
        real.replace("cdi.json", b"{}", mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "cdi.json").stat().st_mode & 0o777 == 0o644
    real.close()


def test_errors_name_the_file(tmp_path: Path) -> None:
    real = RealStateDir(str(tmp_path / "state"))
    (tmp_path / "state" / "a").mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        real.replace("a", b"one")
    assert "state/a" in str(caught.value)
    assert caught.value.errno == errno.EISDIR
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["a"], "no temporary file is left"
    real.close()


def test_another_process_waits_for_the_lock(tmp_path: Path) -> None:
    real = RealStateDir(str(tmp_path))
    code = (
        "import sys; from nursery_apps.edges.state_dir import RealStateDir\n"
        "state = RealStateDir(sys.argv[1]); print('waiting', flush=True)\n"
        "with state.locked(): print(state.read('a').decode(), flush=True)"
    )
    with real.locked():
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        real.replace("a", b"written under the lock")
    assert other.communicate(timeout=10)[0] == "written under the lock\n"
    real.close()


def test_what_a_killed_writer_left_is_swept_at_once_and_nothing_else(tmp_path: Path) -> None:
    left, written, theirs = tmp_path / ".a.intel-gpu-tmp-00", tmp_path / ".b.intel-gpu-tmp-00", tmp_path / ".other.tmp-1"
    for path in (left, written, theirs):
        path.write_bytes(b"")
    with written.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another instance does for as long as it writes
        RealStateDir(str(tmp_path)).close()
    assert not left.exists()
    assert written.exists() and theirs.exists()


def test_a_second_name_about_to_replace_the_kept_one_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    current, second = tmp_path / "journal", tmp_path / ".journal.old.intel-gpu-tmp-00"
    current.write_bytes(b"old")
    second.hardlink_to(current)
    RealStateDir(str(tmp_path)).close()
    assert second.exists() and current.read_bytes() == b"old"


def test_an_instance_that_starts_between_making_a_file_and_locking_it_costs_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, lock, starts = RealStateDir(str(tmp_path)), fcntl.flock, [RealStateDir]

    def late(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and starts:
            starts.pop()(str(tmp_path)).close()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    state.replace("a", b"one")
    assert state.read("a") == b"one"
    assert starts == []
    state.close()


def test_a_directory_that_nothing_is_in_vanishes_and_any_other_stays(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for path in (empty, used):
        state = RealStateDir(str(path))
        with state.locked():
            pass
        if path is used:
            state.replace("journal", b"x")
        state.vanish()
    assert not empty.exists() and (used / "journal").read_bytes() == b"x"


def test_a_directory_that_another_instance_has_open_stays_as_it_is(tmp_path: Path) -> None:
    old, new = RealStateDir(str(tmp_path / "d")), RealStateDir(str(tmp_path / "d"))
    with new.locked():
        old.vanish()
        assert (tmp_path / "d" / ".lock").exists()
    new.replace("a", b"one")
    assert new.read("a") == b"one"
    new.remove("a")
    new.vanish()
    assert not (tmp_path / "d").exists()
