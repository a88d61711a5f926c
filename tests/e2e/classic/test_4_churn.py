"""Two hundred pods come and go where the controller allocates: afterwards nothing is left over."""

from __future__ import annotations

import os
import pathlib
import re
import time
from collections.abc import Callable

from nursery_apps.edges.kube_link import CONNECTIONS
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import COUNT, ClassicNamespace
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import STAY

PODS, WAVE = 200, 40
"""Connections to the API server that idle are closed by the next call that is made: up to CONNECTIONS of them may be open at any time."""


def test_two_hundred_pods(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace, figure: Callable[[str, int], None]) -> None:
    driver.renew()  # what an instance that was killed left behind goes when the next one starts
    ns.ask("one")
    ns.ask("vf", count=1, type="vf", memory=3000)
    wave(ns, 0, WAVE)  # what the first pods make once, stays
    driver.nothing_held()
    leader = node.process_of(driver.leader())
    assert leader is not None
    processes = {"plugin": node.process(), "controller": leader}
    before = {name: descriptors(process) for name, process in processes.items()}
    begun = time.monotonic()
    for first in range(WAVE, PODS, WAVE):
        wave(ns, first, min(WAVE, PODS - first))
    figure("classic: pods a minute", round(60 * (PODS - WAVE) / (time.monotonic() - begun)))
    ns.claims_gone()
    driver.nothing_held()
    assert (node.process(), node.process_of(driver.leader())) == tuple(processes.values())
    for name, process in processes.items():
        assert descriptors(process) <= before[name] + CONNECTIONS, name
        figure(f"classic: RSS of the {name} after {PODS} pods, KiB", resident(process))
    assert driver.metric("findings") == 0


def wave(ns: ClassicNamespace, first: int, count: int) -> None:
    """Pods that open their device and end; more than there are, so that most wait for another's end. Every fourth wants a VF."""
    names = [f"p{number}" for number in range(first, first + count)]
    for number, name in enumerate(names):
        ns.pod(name, template="one" if number % 4 else "vf", command=COUNT.replace(STAY, "true"))
    ns.all_succeeded(names, seconds=600)
    for name in names:
        ns.api.delete("Pod", name, ns.name, grace=0)


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def resident(process: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{process}/status").read_text(), re.M)
    assert found is not None
    return int(found.group(1))
