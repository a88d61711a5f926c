"""Figures of cards that are cut, and of drivers that are switched: what the driver adds to the time that the kernel takes.

The simulated kernel takes its own 100 ms to make VFs (sriov_enable, drivers/pci/iov.c) and no time for probes, but for the last figure.
"""

from __future__ import annotations

import time

from tools.benches.figures import Figure, median
from tools.benches.world import ROOT, Kubelet, World, world

ENABLE_MS = 100.0
ROUNDS = 7
VF_SECONDS = 0.05
"""What each VF takes when cards are compared: nobody has published what real ones take. With none at all, the interpreter that the fake
kernel shares with the driver is all that is measured."""
FLEX, EIGHT, MANY = "server-8x-flex170", "server-4x-flex140", "monster-64gpu"
VFS_EACH = 9
"""Of 64 cards: 640 devices with the cards themselves."""


def simulated(machine: str) -> tuple[str, ...]:
    return ("--simulate", str(ROOT / "tools" / "machines" / f"{machine}.json"))


def cut(select: str, count: int) -> str:
    return f"sriov: {{mode: fixed, layouts: [{{select: {{{select}}}, vfs: [{{profile: fair-share, count: {count}}}]}}]}}\n"


def until_whole(here: World, *, there_already: int) -> None:
    """Until the VFs of the last round are gone, which the kernel takes a second for: the next is not to wait for it."""
    while len(here.simulate(op="state")) != there_already:
        time.sleep(0.01)
    time.sleep(1.2)


def carve() -> list[Figure]:
    """A claim for the first VF of a card that gets 31, and for the first of each of eight cards at once."""
    one, eight, slow_one, slow_eight = [], [], [], []
    with world() as here:
        here.settings("sriov: {mode: fixed, layouts: [{select: {bdf: '0000:4d:00.0'}, vfs: [{profile: fair-share, count: 31}]}]}\n")
        here.start(*simulated(FLEX))
        here.until_published(8 + 31 + 3)  # 7 cards, 4 VFs that somebody made, and the planned ones
        here.until_registered()
        with here.channel(here.endpoint) as channel:
            kubelet = Kubelet(channel)
            request = [kubelet.request([(here.claim(0, "0000-4d-00-1-0x56c0"), "c0")])]
            for _ in range(ROUNDS):
                one.append(kubelet.prepare(request) - ENABLE_MS)
                kubelet.unprepare(request)
                until_whole(here, there_already=12)
    with world() as here:
        here.settings(cut("pciId: '0x56c1'", 12))
        here.start(*simulated(EIGHT))
        here.until_published(8 + 8 * 12)
        here.until_registered()
        with here.channel(here.endpoint) as channel:
            kubelet = Kubelet(channel)
            firsts = [name for name in here.device_names() if name.split("-")[3] == "1" and name.split("-")[2] == "00"]
            each = [kubelet.request([(here.claim(number, name), f"c{number}")]) for number, name in enumerate(firsts)]
            for _ in range(ROUNDS):
                eight.append(kubelet.prepare(each) - ENABLE_MS)
                kubelet.unprepare(each)
                until_whole(here, there_already=8)
            here.simulate(op="delay", operation="vf", seconds=VF_SECONDS)
            for _ in range(ROUNDS):
                for requests, times in ((each[:1], slow_one), (each, slow_eight)):
                    times.append(kubelet.prepare(requests))
                    kubelet.unprepare(requests)
                    until_whole(here, there_already=8)
    return [
        Figure("carve.31_vfs.beyond_the_kernel", median(one), "ms", ROUNDS, "tools/bench carve", 200.0),
        Figure("carve.8_cards_at_once.beyond_the_kernel", median(eight), "ms", ROUNDS, "tools/bench carve"),
        Figure("carve.1_card.50_ms_a_vf", median(slow_one), "ms", ROUNDS, "tools/bench carve"),
        Figure("carve.8_cards_at_once.50_ms_a_vf", median(slow_eight), "ms", ROUNDS, "tools/bench carve"),
    ]


def switch() -> list[Figure]:
    """A GPU to vfio-pci for a claim, and back."""
    there, back = [], []
    with world() as here:
        here.start(*simulated("server-4x-b60"))
        here.until_published(4)
        here.until_registered()
        here.simulate(op="modprobe", driver="vfio-pci")
        device = here.device_names()[0]
        with here.channel(here.endpoint) as channel:
            kubelet = Kubelet(channel)
            request = [kubelet.request([(here.claim(0, device, driver="vfio-pci"), "c0")])]
            for _ in range(ROUNDS):
                there.append(kubelet.prepare(request))
                back.append(kubelet.unprepare(request))
    return [
        Figure("switch.to_vfio", median(there), "ms", ROUNDS, "tools/bench switch", 50.0),
        Figure("switch.back", median(back), "ms", ROUNDS, "tools/bench switch", 50.0),
    ]


def publish() -> list[Figure]:
    """From exec to 64 cards, each beside nine VFs, in the API."""
    took = []
    with world() as here:
        here.settings(cut("integrated: false", VFS_EACH))
        for _ in range(3):
            began = here.start(*simulated(MANY))
            took.append(1000 * (here.until_published(64 * (1 + VFS_EACH)) - began))
            here.stop()
            here.forget()
    return [Figure("publish.640_devices", median(took), "ms", 3, "tools/bench publish")]
