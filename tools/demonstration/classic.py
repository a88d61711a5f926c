"""The story of classic DRA (Kubernetes 1.28 to 1.30): whole GPUs, shares, VFs, a monitor and an immediate claim on three nodes, and the
controller that decides killed in the middle."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tools.demonstration.classic_stage import NODES, ClassicStage
from tools.demonstration.stage import wait_for
from tools.demonstration.telling import chapter, expect, say

MACHINE = "tools/machines/server-8x-flex170.json"
STAGE = ClassicStage
RELEASE = "1.28"
CARDS = 8
HANDOVER_SECONDS = 20


def tell(stage: ClassicStage, options: argparse.Namespace) -> None:
    chapter("A control plane, a plugin on each of three nodes and two controllers start, as separate processes")
    stage.start_control_plane(options.kubernetes)
    say(f"Kubernetes {options.kubernetes} (embedded) at {stage.url}, with the scheduler that asks drivers")
    stage.apply_manifests()
    begun = time.monotonic()
    for node in NODES:
        stage.start_node(node)
    for name in ("controller-a", "controller-b"):
        stage.start_controller(name)
    wait_for("every node to be Ready", lambda: [state.get("status") for state in stage.states().values()] == ["Ready"] * len(NODES) or None)
    leader = wait_for("a controller to lead", lambda: stage.leader() or None)
    machines = {node: state["spec"]["allocatableDevices"] for node, state in stage.states().items()}
    for node, state in stage.states().items():
        say(f"{node}: {len(state['spec']['allocatableDevices'])} GPUs, {state['status']}")
    say(f"{leader} leads; all are there after {time.monotonic() - begun:.1f} s")

    chapter("Whole GPUs, shares of one, VFs")
    stage.create_claim("whole")
    stage.create_claim("pair", count=2)
    stage.create_classic_pod("exclusive", "whole", "pair")
    for number in range(3):
        stage.create_claim(f"share-{number}", of_class="intel-gpu-shared", memory=4000, millicores=300)
        stage.create_classic_pod(f"sharing-{number}", f"share-{number}")
    for number in range(3):
        stage.create_claim(f"vf-{number}", type="vf", memory=3500)
        stage.create_classic_pod(f"vf-{number}", f"vf-{number}")
    told(stage, "exclusive")
    expect(len(stage.nodes_of("exclusive")) == 6, "one pod has three whole GPUs by two claims, each a card and a render node")
    for name in (*(f"sharing-{number}" for number in range(3)), *(f"vf-{number}" for number in range(3))):
        told(stage, name)

    chapter("A monitor sees every device of a node, an immediate claim waits for no pod")
    stage.create_claim("look", of_class="intel-gpu-monitor")
    stage.create_classic_pod("monitor", "look")
    told(stage, "monitor")
    expect(len(stage.nodes_of("monitor")) >= 2 * CARDS, "the monitor sees at least the eight cards")
    stage.create_claim("soon", mode="Immediate")
    wait_for("the claim to be allocated", lambda: (stage.claim("soon").get("status") or {}).get("allocation"))
    say("the immediate claim has its GPU before any pod asks for it")
    stage.create_classic_pod("late", "soon")
    told(stage, "late")

    chapter(f"{leader} is killed while pods wait for it")
    stage.kill(leader)
    say("killed (SIGKILL): its Lease runs out")
    for number in range(3):
        stage.create_claim(f"after-{number}")
        stage.create_classic_pod(f"after-{number}", f"after-{number}")
    begun = time.monotonic()
    for number in range(3):
        stage.wait_running(f"after-{number}", HANDOVER_SECONDS + 10)
    took = time.monotonic() - begun
    other = stage.leader()
    expect(other not in ("", leader), f"{other} leads")
    expect(took < HANDOVER_SECONDS, f"the pods that waited run {took:.1f} s after the kill")

    chapter("All pods go, and nothing is left")
    claims = stage.api("GET", "/apis/resource.k8s.io/v1alpha2/namespaces/default/resourceclaims")["items"]
    for pod in stage.api("GET", "/api/v1/namespaces/default/pods")["items"]:
        stage.delete_pod(pod["metadata"]["name"])
    for claim in claims:
        stage.delete_claim(claim["metadata"]["name"])
    wait_for("claims to be gone", lambda: not any(stage.claim(claim["metadata"]["name"]) for claim in claims) or None, 30)
    say("every claim is gone: no finalizer is left")
    for node in NODES:
        wait_for(f"the cards of {node}", lambda node=node: devices(stage, node) == machines[node] or None, 30)
    say("every card is what it was before")
    for name in (*NODES, other):
        expect(stage.stop(name) == 0, f"SIGTERM ends {'the plugin of ' if name in NODES else ''}{name} with exit code 0")
    expect(all(state["status"] == "NotReady" for state in stage.states().values()), "every node says NotReady when its plugin has gone")


def told(stage: ClassicStage, name: str) -> None:
    begun = time.monotonic()
    nodes = stage.wait_running(name)
    where = stage.pod(name)["spec"]["nodeName"]
    shown = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
    say(f"pod {name} runs on {where} after {1000 * (time.monotonic() - begun):.0f} ms more with {shown}")


def devices(stage: ClassicStage, node: str) -> Any:
    return stage.states()[node]["spec"]["allocatableDevices"]
