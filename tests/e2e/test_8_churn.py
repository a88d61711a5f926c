"""Five hundred pods come and go: afterwards nothing is left over."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable

from nursery_apps.edges.kube_link import CONNECTIONS
from tests.e2e.driver import Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import OPEN_ALL, Namespace

PODS, WAVE = 500, 50
"""Connections to the API server that idle are closed by the next call that is made: up to CONNECTIONS of them may be open at any time."""


def test_five_hundred_pods(driver: Driver, node: OwnNode, ns: Namespace, figure: Callable[[str, int], None]) -> None:
    driver.renew()  # what an instance that was killed left behind goes when the next one starts
    ns.template("gpu")
    wave(ns, 0, WAVE)  # what the first pods make once, stays
    driver.nothing_prepared()
    process = node.process()
    before, rss = descriptors(process), resident(process)
    for first in range(WAVE, PODS, WAVE):
        wave(ns, first, min(WAVE, PODS - first))
    ns.claims_gone()
    driver.nothing_prepared()
    assert node.process() == process
    assert descriptors(process) <= before + CONNECTIONS
    sockets = sorted(path.name for path in node.state.iterdir() if path.is_socket())
    assert len([name for name in sockets if name != "simulator.sock"]) == 1
    figure("RSS before the churn, KiB", rss)
    figure("RSS after 500 pods, KiB", resident(process))
    assert driver.metric("findings") == 0


def wave(ns: Namespace, first: int, count: int) -> None:
    """Pods that open their GPU and end; more than there are GPUs, so that most wait for another's end."""
    names = [f"p{number}" for number in range(first, first + count)]
    for name in names:
        ns.pod(name, template="gpu", command=OPEN_ALL)
    ns.all_succeeded(names, seconds=600)
    for name in names:
        ns.api.delete("Pod", name, ns.name, grace=0)


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def resident(process: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{process}/status").read_text(), re.M)
    assert found is not None
    return int(found.group(1))
