"""The groups of figures, each a function of nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.benches import cards
from tools.benches.allocation import allocation
from tools.benches.figures import Figure, median, percentile
from tools.benches.world import NODE, ROOT, SLICES, Kubelet, World, world

MACHINES = ROOT / "tools" / "machines"
EIGHT, MANY = ("server-8x-max1550", 8), ("monster-64gpu", 64)
STARTS = 9
ONE_BY_ONE = 300
BURSTS = 9
BURST = 64
HOTPLUGS = 20
IDLE_SECONDS = 60.0
"""Two of the periods in which GPUs' files are read."""


def simulated(machine: str) -> tuple[str, ...]:
    return ("--simulate", str(MACHINES / f"{machine}.json"))


@contextmanager
def on_disk(machine: str) -> Iterator[tuple[str, ...]]:
    """The machine as real files: what a node without a simulator in its process costs."""
    from tests.fakes.materialise import materialise

    with tempfile.TemporaryDirectory(prefix="gm-", dir="/tmp") as name:
        base = Path(name)
        materialise(json.loads((MACHINES / f"{machine}.json").read_bytes()), base, make_nodes=False)
        yield ("--sysfs-root", f"{base}/sys", "--dev-root", f"{base}/dev")


def _up(here: World, flags: tuple[str, ...], count: int) -> None:
    here.start(*flags)
    here.until_published(count)
    here.until_registered()


def memory() -> list[Figure]:
    """Idle, after registration and publishing; the machine as real files."""
    found: list[Figure] = []
    for machine, count in (EIGHT, MANY):
        with world() as here, on_disk(machine) as flags:
            _up(here, flags, count)
            time.sleep(2.5)
            for key, value in here.memory().items():
                aim = 43.0 if (key, count) == ("Rss", 8) else None
                found.append(Figure(f"memory.{key.lower()}.{count}_gpus", value, "MiB", 1, "tools/bench memory", aim))
    return found


def start() -> list[Figure]:
    """From exec to GetInfo answered, and to the devices in the API."""
    found: list[Figure] = []
    for machine, count in (EIGHT, MANY):
        registered, published = [], []
        with world() as here:
            for _ in range(STARTS):
                began = here.start(*simulated(machine))
                registered.append(1000 * (here.until_registered() - began))
                here.stop()
                here.forget()
                began = here.start(*simulated(machine))
                published.append(1000 * (here.until_published(count) - began))
                here.stop()
                here.forget()
        aim = 700.0 if count == 64 else None
        found.append(Figure(f"start.registered.{count}_gpus", median(registered), "ms", STARTS, "tools/bench start", aim))
        found.append(Figure(f"start.published.{count}_gpus", median(published), "ms", STARTS, "tools/bench start", aim))
    return found


def prepare() -> list[Figure]:
    """One claim after the other, one GET each."""
    prepared, unprepared = [], []
    with world() as here:
        _up(here, simulated(MANY[0]), MANY[1])
        device = here.device_names()[0]
        with here.channel(here.endpoint) as channel:
            kubelet = Kubelet(channel)
            for number in range(ONE_BY_ONE + 20):
                request = [kubelet.request([(here.claim(number, device), f"c{number}")])]
                prepared.append(kubelet.prepare(request))
                unprepared.append(kubelet.unprepare(request))
                here.api("DELETE", f"/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/c{number}")
    prepared, unprepared = prepared[20:], unprepared[20:]  # the first ones open connections
    command = "tools/bench prepare"
    return [
        Figure("prepare.p50", percentile(prepared, 0.5), "ms", ONE_BY_ONE, command, 8.0),
        Figure("prepare.p99", percentile(prepared, 0.99), "ms", ONE_BY_ONE, command, 16.0),
        Figure("unprepare.p50", percentile(unprepared, 0.5), "ms", ONE_BY_ONE, command, 4.0),
        Figure("unprepare.p99", percentile(unprepared, 0.99), "ms", ONE_BY_ONE, command),
    ]


def burst() -> list[Figure]:
    """64 claims in 64 calls at once, and in one call."""
    calls, one, unprepared = [], [], []
    with world() as here:
        _up(here, simulated(MANY[0]), MANY[1])
        claims = [(here.claim(number, device), f"c{number}") for number, device in enumerate(here.device_names())]
        assert len(claims) == BURST
        with here.channel(here.endpoint) as channel:
            kubelet = Kubelet(channel)
            each, together = [kubelet.request([claim]) for claim in claims], [kubelet.request(claims)]
            for _ in range(BURSTS + 1):
                calls.append(kubelet.prepare(each))
                unprepared.append(kubelet.unprepare(each))
                one.append(kubelet.prepare(together))
                kubelet.unprepare(together)
    command = "tools/bench burst"
    return [
        Figure("burst.prepare.64_calls", median(calls[1:]), "ms", BURSTS, command, 110.0),
        Figure("burst.prepare.1_call", median(one[1:]), "ms", BURSTS, command, 40.0),
        Figure("burst.unprepare.64_calls", median(unprepared[1:]), "ms", BURSTS, command, 80.0),
    ]


def hotplug() -> list[Figure]:
    """From the card's event to the slice that a watch shows."""
    gone, back = [], []
    with world() as here:
        _up(here, simulated("server-4x-b60"), 4)
        version = here.api("GET", SLICES)["metadata"]["resourceVersion"]
        path = f"{SLICES}?watch=true&fieldSelector=spec.nodeName%3D{NODE}&resourceVersion={version}"
        with here.server.open("GET", path, seconds=60) as watch:
            for _ in range(HOTPLUGS):
                for op, times in (("unplug", gone), ("plug", back)):
                    time.sleep(0.6)  # apart from the write before, which would make this one wait for its batch
                    began = time.perf_counter()
                    here.simulate(op=op, bdf="0000:ba:00.0")
                    wanted = 3 if op == "unplug" else 4
                    while True:
                        event = json.loads(watch.readline())
                        if event["type"] != "BOOKMARK" and len(event["object"]["spec"].get("devices") or ()) == wanted:
                            break
                    times.append(1000 * (time.perf_counter() - began))
    return [
        Figure("hotplug.unplug_to_slice", median(gone), "ms", HOTPLUGS, "tools/bench hotplug", 100.0),
        Figure("hotplug.plug_to_slice", median(back), "ms", HOTPLUGS, "tools/bench hotplug", 100.0),
    ]


def idle() -> list[Figure]:
    """CPU with nothing to do."""
    with world() as here, on_disk(EIGHT[0]) as flags:
        _up(here, flags, EIGHT[1])
        time.sleep(3)
        before = here.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        used = 1000 * (here.cpu_seconds() - before) / IDLE_SECONDS
    return [Figure("idle.cpu", used, "ms/s", 1, "tools/bench idle", 2.0)]


GROUPS: dict[str, Callable[[], list[Figure]]] = {
    "memory": memory, "start": start, "prepare": prepare, "burst": burst, "hotplug": hotplug, "idle": idle,
    "allocation": allocation,
    "carve": cards.carve, "switch": cards.switch, "publish": cards.publish,
}  # fmt: skip
