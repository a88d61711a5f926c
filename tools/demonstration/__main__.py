"""The story of `tools/demo`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.demonstration.stage import ROOT, NotAsExpected, Stage, on_stage, short_directory, wait_for

SETTINGS = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\nprobes:\n  port: 0\n"
NEW_CARD = "0000:fe:00.0"
console = Console(emoji=False, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo", description="Show the driver at work on a fake machine.")
    parser.add_argument("--machine", default="tools/machines/server-4x-b60.json", help="a file of tools/machines (default: %(default)s)")
    parser.add_argument("--kubernetes", default="1.37", help="release that the control plane plays (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Enter or Ctrl-C")
    options = parser.parse_args()
    directory = short_directory()
    started = time.monotonic()
    try:
        with on_stage(directory, str((ROOT / options.machine).resolve())) as stage:
            tell(stage, options)
            if options.keep:
                keep(stage)
    except NotAsExpected as error:
        console.print(f"\n[bold red]It did not happen:[/] {error}", markup=True)
        console.print(f"The plugin's last words ({directory}/plugin.log):", style="dim")
        log = directory / "plugin.log"
        for line in log.read_text().splitlines()[-15:] if log.exists() else ():
            console.print("  " + line, style="dim", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    shutil.rmtree(directory)
    console.print(f"\n[bold green]All of it happened[/], in {time.monotonic() - started:.0f} s. Nothing is left behind.")
    return 0


def tell(stage: Stage, options: argparse.Namespace) -> None:
    chapter("A control plane and the plugin start, as separate processes")
    stage.settings.write_text(SETTINGS)
    stage.start_control_plane(options.kubernetes)
    say(f"Kubernetes {options.kubernetes} (embedded) at {stage.url}")
    begun = time.monotonic()
    stage.start_plugin()
    devices = wait_for("ResourceSlices", lambda: stage.devices() or None)
    say(f"published {len(devices)} GPUs {1000 * (time.monotonic() - begun):.0f} ms after its start")
    wait_for("the kubelet to accept the plugin", lambda: stage.registrations() or None)
    say(f"registered with the kubelet after {1000 * (time.monotonic() - begun):.0f} ms")
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
    left = sorted(path.name for path in stage.cdi_root.iterdir())
    expect(left == [], f"no CDI file is left {left or ''}")
    expect(stage.stop_plugin() == 0, "SIGTERM ends the plugin with exit code 0")
    sockets = sorted(str(path.relative_to(stage.kubelet_root)) for path in stage.kubelet_root.rglob("*.sock"))
    expect(sockets == [], f"no socket is left {sockets or ''}")


def chapter(title: str) -> None:
    console.print(f"\n[bold cyan]— {title}[/]")


def say(text: str, style: str = "") -> None:
    console.print("  " + text, style=style, markup=False, soft_wrap=True)


def expect(happened: bool, what: str) -> None:
    if not happened:
        raise NotAsExpected(f"not true: {what}")
    console.print(f"  [green]✓[/] {what.rstrip()}")


def show(devices: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("  device", "model", "family", "memory", "pcieRoot", "numa"):
        table.add_column(heading)
    for name, device in devices.items():
        attributes, capacity = device["attributes"], device.get("capacity") or {}
        table.add_row(
            "  " + name,
            attributes["model"]["string"],
            attributes["family"]["string"],
            capacity.get("memory", {}).get("value", "-"),
            attributes.get("resource.kubernetes.io/pcieRoot", {}).get("string", "-"),
            str(attributes.get("numaNode", {}).get("int", "-")),
        )
    console.print(table)


def running(stage: Stage, name: str, seconds: float = 20) -> list[str]:
    begun = time.monotonic()
    wait_for(f"pod {name} to run", lambda: stage.pod(name).get("status", {}).get("phase") == "Running" or None, seconds)
    nodes = stage.nodes_of(name)
    say(f"pod {name} runs after {1000 * (time.monotonic() - begun):.0f} ms with {', '.join(nodes)}")
    return nodes


def in_use(stage: Stage, device: str) -> bool:
    claims = stage.api("GET", "/apis/resource.k8s.io/v1/resourceclaims")["items"]
    allocations = [claim.get("status", {}).get("allocation") for claim in claims]
    return any(result["device"] == device for allocation in allocations if allocation for result in allocation["devices"]["results"])


def reload(stage: Stage, more: str, verdict: str) -> None:
    before = len(stage.plugin_log.read_text().splitlines())
    stage.settings.write_text(SETTINGS + more)
    stage.hang_up()
    lines = wait_for(
        f"the plan ({verdict})",
        lambda: [line for line in stage.plugin_log.read_text().splitlines()[before:] if verdict in line] or None,
    )
    say(f"plan: {lines[0].partition('plan: ')[2] or lines[0]}")


def keep(stage: Stage) -> None:
    stage.start_plugin()
    console.print("\nLeft running. Try, in another terminal:")
    say(f"tools/sim {stage.state_dir}/simulator.sock state")
    say(f"curl {stage.url}/apis/resource.k8s.io/v1/resourceslices")
    say(f"tail -f {stage.plugin_log}")
    console.print("Enter ends it.")
    sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
