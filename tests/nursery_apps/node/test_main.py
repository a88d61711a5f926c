"""`gpu-node-plugin` as a command: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dra import journal
from dra.names import Bdf, ClaimUid, DeviceName, PoolName
from dra.records import Grant, Kept, Record
from tests.fakes.machines import FOLDER

HEAD = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"
MACHINE = str(FOLDER / "server-4x-b60.json")


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-m", "nursery_apps.node", *argv], capture_output=True, text=True, timeout=60, cwd=FOLDER.parents[1], env=environ
    )


def test_discover_prints_json_for_programs() -> None:
    run = command("discover", "--simulate", MACHINE, "--json")
    assert run.returncode == 0
    assert [gpu["bdf"] for gpu in json.loads(run.stdout)["gpus"]] == ["0000:18:00.0", "0000:3a:00.0", "0000:9a:00.0", "0000:ba:00.0"]


def test_one_machine_of_a_file_can_be_named() -> None:
    assert command("discover", "--simulate", f"{MACHINE}:server-4x-b60").returncode == 0
    run = command("discover", "--simulate", f"{MACHINE}:another")
    assert run.returncode == 2 and "another" in run.stderr


def test_a_recorded_machine_is_the_same_to_discover(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    run = command("record", "--simulate", MACHINE, "--output", str(path))
    assert run.returncode == 0 and "recorded 4 GPUs and VFs" in run.stderr and "serial numbers" in run.stderr
    shown = [command("discover", "--simulate", machine, "--json").stdout for machine in (MACHINE, str(path))]
    assert shown[0] == shown[1]
    assert json.loads(command("record", "--simulate", MACHINE).stdout) == json.loads(path.read_bytes())


def test_without_a_gpu_nothing_is_recorded_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "bus/pci/devices").mkdir(parents=True)
    run = command("record", "--sysfs-root", str(tmp_path))
    assert run.returncode == 2 and "no Intel GPU" in run.stderr and run.stdout == ""
    run = command("record", "--simulate", MACHINE, "--output", str(tmp_path / "no" / "file"))
    assert run.returncode == 2 and "cannot write" in run.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "--node-name (or NODE_NAME) is required"),
        (("--node-name", "n", "--config", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
        (("--node-name", "n", "--simulate", "/nowhere.json"), "--simulate /nowhere.json: No such file or directory"),
        (("discover", "--sysfs-root", "/nowhere"), "/nowhere/bus/pci/devices does not exist: is --sysfs-root right?"),
        (("plan",), "which file? Give --config FILE"),
        (("reload",), "reload: process 1 is not the plugin"),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_ends_with_2(argv: tuple[str, ...], words: str) -> None:
    run = command(*argv)
    assert run.returncode == 2
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_wrong_settings_file_ends_with_2_and_names_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "probes: {prot: 1}\n")
    run = command("--node-name", "n", "--config", str(path))
    assert run.returncode == 2
    assert f"{path}: Object contains unknown field `prot` - at `$.probes`; did you mean `port`?" in run.stderr


def test_plan_shows_what_would_happen_to_the_running_plugin_and_changes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "plugins" / "gpu.intel.com"
    state.mkdir(parents=True)
    device = DeviceName("0000-18-00-0-0xe211")
    grant = Grant(requests=(), pool=PoolName("n"), device=device, bdf=Bdf("0000:18:00.0"))
    record = Record(uid=ClaimUid("claim-1"), namespace="d", name="c", grants=(grant,))
    (state / journal.FILE).write_bytes(journal.line(Kept(record)))
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "gracePeriod: 5s\npublish: {exclude: [{bdf: 0000:18:00.0}]}\n")
    before = sorted(tmp_path.rglob("*"))
    run = command("plan", "--config", str(path), "--kubelet-root", str(tmp_path), "--simulate", MACHINE)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        'apply gracePeriod: "20s" -> "5s"',
        f'refused publish.exclude: [] -> [{{"bdf":"0000:18:00.0"}}] ({device} is held by claim claim-1)',
    ]
    assert "comparing with the defaults" in run.stderr
    assert sorted(tmp_path.rglob("*")) == before
    given = command("plan", f"--settings=---\n{path.read_text()}", "--kubelet-root", str(tmp_path), "--simulate", MACHINE)
    assert (given.returncode, given.stdout) == (0, run.stdout)
    wrong = command("plan", "--settings", "probes: 1", "--kubelet-root", str(tmp_path), "--simulate", MACHINE)
    assert wrong.returncode == 2 and "--settings: " in wrong.stderr
