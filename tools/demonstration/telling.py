"""How a story is told: chapters, sentences, and what must be true."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.demonstration.stage import NotAsExpected, Stage, wait_for

HEAD = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\nprobes:\n  port: 0\n"
console = Console(emoji=False, highlight=False)


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


def begin(stage: Stage, kubernetes: str, settings: str = "") -> dict[str, Any]:
    """The first chapter of every story; the devices that are published."""
    chapter("A control plane and the plugin start, as separate processes")
    stage.settings.write_text(HEAD + settings)
    stage.start_control_plane(kubernetes)
    say(f"Kubernetes {kubernetes} (embedded) at {stage.url}")
    begun = time.monotonic()
    stage.start_plugin()
    devices = wait_for("ResourceSlices", lambda: stage.devices() or None)
    say(f"published {len(devices)} devices {1000 * (time.monotonic() - begun):.0f} ms after its start")
    wait_for("the kubelet to accept the plugin", lambda: stage.registrations() or None)
    say(f"registered with the kubelet after {1000 * (time.monotonic() - begun):.0f} ms")
    return devices


def end(stage: Stage) -> None:
    """The last one."""
    left = sorted(path.name for path in stage.cdi_root.iterdir())
    expect(left == [], f"no CDI file is left {left or ''}")
    expect(stage.stop_plugin() == 0, "SIGTERM ends the plugin with exit code 0")
    sockets = sorted(str(path.relative_to(stage.kubelet_root)) for path in stage.kubelet_root.rglob("*.sock"))
    expect(sockets == [], f"no socket is left {sockets or ''}")
