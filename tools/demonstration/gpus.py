"""The story of whole GPUs: given to pods, unplugged and plugged in, settings changed, the plugin killed."""

from __future__ import annotations

import argparse
import time

from tools.demonstration.stage import NotAsExpected, Stage, wait_for
from tools.demonstration.telling import HEAD, begin, chapter, end, expect, in_use, running, say, show

MACHINE = "tools/machines/server-4x-b60.json"
STAGE = Stage
RELEASE = "1.37"
NEW_CARD = "0000:fe:00.0"


def tell(stage: Stage, options: argparse.Namespace) -> None:
    devices = begin(stage, options.kubernetes)
    show(devices)
    if len(devices) < 4:
        raise NotAsExpected(f"{options.machine} offers {len(devices)} GPUs, the story needs 4")

    chapter("A pod asks for a GPU of a family with more than some memory")
    first = next(iter(devices.values()))
    family = first["attributes"]["family"]["string"]
    cel = (
        f'device.attributes["gpu.intel.com"].family == "{family}" && device.capacity["gpu.intel.com"].memory.compareTo(quantity("1Gi")) > 0'
    )
    say(cel, style="dim")
    stage.create_pod("first", cel)
    one = running(stage, "first")

    chapter("A second pod gets another one")
    stage.create_pod("second", cel)
    two = running(stage, "second")
    expect(set(one).isdisjoint(two), "the two pods have no device node in common")

    chapter("A GPU is unplugged, another plugged in, live")
    free = next(name for name in reversed(list(devices)) if not in_use(stage, name))
    bdf, first_bdf = (devices[name]["attributes"]["resource.kubernetes.io/pciBusID"]["string"] for name in (free, next(iter(devices))))
    begun = time.monotonic()
    stage.simulate("unplug", bdf=bdf)
    wait_for(f"{free} to leave the slices", lambda: free not in stage.devices())
    say(f"unplugged {bdf}: gone from the slices after {1000 * (time.monotonic() - begun):.0f} ms")
    time.sleep(1)  # a person does not swap cards faster
    begun = time.monotonic()
    stage.simulate("plug", bdf=NEW_CARD, like=first_bdf)
    new = wait_for("the new card", lambda: next((name for name in stage.devices() if name not in devices), None))
    say(f"plugged in a new card at {NEW_CARD}: {new} is published after {1000 * (time.monotonic() - begun):.0f} ms")

    chapter("Settings change: SIGHUP shows the plan, and what a pod uses is not taken away")
    used = next(name for name in devices if in_use(stage, name))
    used_bdf = devices[used]["attributes"]["resource.kubernetes.io/pciBusID"]["string"]
    reload(stage, f"publish:\n  exclude:\n  - bdf: '{used_bdf}'\n", "refused")
    expect(used in stage.devices(), f"{used} is in use and still published")
    reload(stage, f"publish:\n  exclude:\n  - bdf: '{NEW_CARD}'\n", "apply")
    wait_for(f"{new} to be withdrawn", lambda: new not in stage.devices())
    say(f"{new} is withdrawn")
    reload(stage, "", "apply")
    wait_for(f"{new} to be offered again", lambda: new in stage.devices())
    say(f"{new} is offered again")

    chapter("The plugin is killed in the middle of a prepare")
    stage.slow_down_claims(1.5)
    stage.create_pod("third", cel)
    wait_for("the plugin to read the third claim", lambda: not stage.is_slowed_down())
    stage.kill_plugin()
    say("killed (SIGKILL) while the claim was being read")
    stage.start_plugin()
    three = running(stage, "third", 60)
    expect(set(three).isdisjoint(one) and set(three).isdisjoint(two), "it has a GPU of its own")
    expect(stage.nodes_of("first") == one, "the first pod has kept its device nodes")

    chapter("Everything goes")
    for name in ("first", "second", "third"):
        stage.delete_pod(name)
    for name in ("first", "second", "third"):
        wait_for(f"pod {name} to be gone", lambda name=name: stage.pod(name) is None or None)
    end(stage)


def reload(stage: Stage, more: str, verdict: str) -> None:
    before = len(stage.plugin_log.read_text().splitlines())
    stage.settings.write_text(HEAD + more)
    stage.hang_up()
    lines = wait_for(
        f"the plan ({verdict})",
        lambda: [line for line in stage.plugin_log.read_text().splitlines()[before:] if verdict in line] or None,
    )
    say(f"plan: {lines[0].partition('plan: ')[2] or lines[0]}")
