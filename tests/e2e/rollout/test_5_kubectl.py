"""What `kubectl intel-gpu` says of a real cluster."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.driver import HEAD
from tests.e2e.pods import Namespace
from tests.e2e.rollout.release import Release, ask, is_classic
from tools.realcluster.node import until

PLUGIN = pathlib.Path(sys.executable).with_name("kubectl-intel_gpu")


@pytest.fixture(scope="module")
def running(release: Release) -> Iterator[Release]:
    release.install()
    yield release
    release.uninstall()


def kubectl(*arguments: str, code: int = 0) -> str:
    """By kubectl, as people do, which finds the plugin on its path."""
    environment = os.environ | {"PATH": f"{PLUGIN.parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    program = os.environ.get("KUBECTL") or str(shutil.which("kubectl"))
    done = subprocess.run([program, "intel-gpu", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def listed(*arguments: str, code: int = 0) -> Any:
    return json.loads(kubectl(*arguments, "-o", "json", code=code))


def all_devices() -> list[Any]:
    """Of the machine's eight cards, one of which an administrator has cut in four; none until they are all published."""
    cards = [card for node in listed("list")["nodes"] for card in node["cards"]]
    return [device for card in cards for device in (card["whole"], *card["vfs"]) if device] if len(cards) == 8 else []


def test_who_has_what_and_why_a_pod_waits(running: Release, ns: Namespace) -> None:
    ask(ns, "gpu")
    devices = until("all cards in the list", all_devices, seconds=30, look="the plugin's log")
    given = [device for device in devices if device["kind"] == "gpu" or not is_classic(ns.api)]  # VFs have to be asked for there
    names = [f"p{number}" for number in range(len(given))]
    for name in names:
        ns.pod(name, template="gpu")
    ns.ready(*names)
    ns.pod("late", template="gpu")
    ns.api.wait_event("late", "FailedScheduling", namespace=ns.name)
    held = {holder["pods"][0] for device in all_devices() for holder in device["holders"]}
    assert held == set(names)
    assert any(name in kubectl("who", given[0]["pci"]) for name in names)
    assert "late" in kubectl("why", "-n", ns.name, "pod/late", code=1)
    assert f"{ns.name}/p0" in kubectl("map")


def test_the_doctor_finds_nothing_where_nothing_is_wrong(running: Release) -> None:
    findings = listed("doctor")["findings"]
    assert [finding for finding in findings if finding["verdict"] == "problem"] == []
    assert {"node plugin", "kubelet", "container runtime", "GPUs"} <= {finding["check"] for finding in findings if finding["about"]}


def test_what_a_file_would_do_says_the_node(running: Release, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(f"{HEAD}gracePeriod: 5s\n")
    assert 'apply gracePeriod: "20s" -> "5s"' in kubectl("plan", "-f", str(file))
    file.write_text(f"{HEAD}gracePeriod: soon\n")
    kubectl("plan", "-f", str(file), code=2)
