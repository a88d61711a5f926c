"""The story of cards that are cut: VFs for pods, a full card, a kill in the middle, a GPU for a virtual machine, all whole again."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tools.demonstration.stage import Stage, wait_for
from tools.demonstration.telling import begin, chapter, end, expect, running, say

MACHINES = {
    "tools/machines/server-8x-flex170.json": ("0x56c0", "flex170_m4", 4),
    "tools/machines/server-4x-b60.json": ("0xe211", "b60_n4", 4),
}
"""Machine -> what is cut on it, by which profile, into how many."""
MACHINE = next(iter(MACHINES))
STAGE = Stage
RELEASE = "1.37"


def tell(stage: Stage, options: argparse.Namespace) -> None:
    pci_id, profile, count = MACHINES[options.machine]
    layout = f"sriov:\n  mode: fixed\n  layouts:\n  - select: {{pciId: '{pci_id}'}}\n    vfs: {profile}\n"
    devices = begin(stage, options.kubernetes, layout)
    cards = sorted(
        {text(device, "pfPciAddress") for device in devices.values() if text(device, "profile") == profile}, key=lambda bdf: (len(bdf), bdf)
    )
    card, other = cards[0], cards[1]
    say(f"{len(cards)} cards, each beside the {count} VFs of {profile} that it can be cut into")
    expect(vfs(stage, card) == 0, "no VF is made yet: nobody has asked for one")

    chapter(f"Pods ask for VFs of {card}")
    mine = f'device.attributes["gpu.intel.com"].pfPciAddress == "{card}"'
    pods = [f"vf-{number}" for number in range(count)]
    for name in pods:
        stage.create_pod(name, mine, device_class="gpu-vf.intel.com")
    seen = [running(stage, name) for name in pods]
    expect(len({node for nodes in seen for node in nodes}) == 2 * count, "every pod has a card and a render node of its own")
    expect(vfs(stage, card) == count, f"the card has {count} VFs")

    chapter("What cannot be is not given")
    stage.create_pod("one-too-many", mine, device_class="gpu-vf.intel.com")
    stage.create_pod("whole", f'{mine} && device.attributes["gpu.intel.com"].type == "gpu"')
    time.sleep(1)  # for a scheduler that would
    expect(not is_running(stage, "one-too-many"), "a pod more than the card has VFs waits")
    expect(not is_running(stage, "whole"), "so does one that wants the card whole")

    chapter(f"The plugin is killed while it makes VFs of {other}")
    stage.simulate("delay", operation="vf", seconds=0.3)
    stage.create_pod("late", f'device.attributes["gpu.intel.com"].pfPciAddress == "{other}"', device_class="gpu-vf.intel.com")
    wait_for("the plugin to begin", lambda: f"{other}: making {count} VFs" in stage.plugin_log.read_text() or None)
    stage.kill_plugin()
    say("killed (SIGKILL) in the middle of it")
    stage.start_plugin()
    running(stage, "late", 60)
    stage.simulate("delay", operation="vf", seconds=0)
    expect(all(stage.nodes_of(name) == nodes for name, nodes in zip(pods, seen, strict=True)), "the other pods have kept their VFs")

    chapter("The last pod goes, and the card is whole again")
    stage.delete_pod("one-too-many")
    for name in pods:
        stage.delete_pod(name)
    running(stage, "whole", 60)
    expect(vfs(stage, card) == 0, "its VFs are gone, and the pod that waited for the whole card has it")
    stage.delete_pod("whole")
    stage.delete_pod("late")
    wait_for(f"the VFs of {other} to go", lambda: vfs(stage, other) == 0)
    say(f"{other} is whole again, too")

    chapter("A GPU goes to a virtual machine, and comes back")
    stage.simulate("modprobe", driver="vfio-pci")
    before = stage.simulate("state")[card]["driver"]
    stage.create_pod("vm", f'device.attributes["gpu.intel.com"].pciAddress == "{card}"', device_class="gpu-vfio.intel.com")
    running(stage, "vm")
    expect(stage.simulate("state")[card]["driver"] == "vfio-pci", f"{card} is bound to vfio-pci")
    stage.delete_pod("vm")
    wait_for(f"{card} to come back", lambda: stage.simulate("state")[card]["driver"] == before)
    say(f"{card} is bound to {before} again")
    wait_for("the pods to be gone", lambda: not any(stage.pod(name) for name in (*pods, "whole", "late", "vm")))
    end(stage)


def text(device: dict[str, Any], name: str) -> str:
    return str(device["attributes"].get(name, {}).get("string", ""))


def vfs(stage: Stage, card: str) -> int:
    """VFs that the machine has of a card."""
    return len([bdf for bdf in stage.simulate("state") if bdf.startswith(card[:8]) and bdf != card])


def is_running(stage: Stage, name: str) -> bool:
    return bool(stage.pod(name).get("status", {}).get("phase") == "Running")
