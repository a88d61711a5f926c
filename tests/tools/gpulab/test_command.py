"""`tools/lab` says in a sentence why it cannot, and ends with everything it began."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.tools.gpulab import labs
from tools.gpulab import __main__ as command
from tools.gpulab import needs

MACHINE = "tools/machines/server-4x-b60.json"


def test_without_root_there_is_no_lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command.main(["run", MACHINE, "--", "true"]) == 3
    assert capsys.readouterr().err == "tools/lab: a lab needs root, for mounts, namespaces and uevents: use sudo\n"


def test_without_fuse_there_is_no_lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(needs, "FUSE", "/dev/no-fuse")
    assert command.main(["run", MACHINE]) == 3
    assert "a lab needs FUSE, and /dev/no-fuse cannot be opened (No such file or directory)" in capsys.readouterr().err


def lab(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.gpulab", "run", *arguments], cwd=labs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_commands_exit_code_is_ours() -> None:
    labs.skip_outside()
    with lab(MACHINE, "--", "sh", "-c", "cat $SYSFS_ROOT/class/drm/renderD128/dev /proc/sys/kernel/osrelease; exit 7") as process:
        assert process.communicate()[0] == "226:128\n7.1.0\n"
    assert process.returncode == 7


def test_a_machine_that_is_none() -> None:
    labs.skip_outside()
    with lab("pyproject.toml", "--", "true") as process:
        assert process.communicate()[1].startswith("tools/lab: pyproject.toml: ")
    assert process.returncode == 2


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(end: signal.Signals) -> None:
    labs.skip_outside()
    with lab(MACHINE, "--", "sh", "-c", "echo here; exec sleep 600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(end)
        assert process.stdout.read() == "", "it ends when the last process that could write is gone"
