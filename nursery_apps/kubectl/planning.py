"""`kubectl intel-gpu plan`: what a settings file would do on each node, said by the plugin that runs there."""

from __future__ import annotations

import argparse

import msgspec
from rich.text import Text

from dra import settings
from dra.explaining import checks
from dra.settings import SettingsInvalid
from nursery_apps.kube_reader import NoAnswer
from nursery_apps.kubectl.command import FOUND, OK, Command, Given
from nursery_apps.kubectl.problems import Misused, Problem

PLUGIN = "gpu-node-plugin"
LONGEST = 64 * 1024
"""Bytes of a file: it travels as one word of a command line, of which Linux takes 128 KiB."""
KEY = "settings.yaml"
"""Of the plugin's ConfigMap."""


class NodePlan(msgspec.Struct, frozen=True):
    node: str
    lines: tuple[str, ...] = ()
    """As `gpu-node-plugin plan` prints them; none if nothing would change."""
    remark: str = ""
    """What it says beside that, such as what it compared with."""
    error: str = ""
    """Why it is not known, or why the file would be refused."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--filename", required=True, metavar="FILE", help="settings of the node plugin, or its ConfigMap; - for standard input"
    )
    parser.add_argument("node", nargs="*", metavar="NODE", help="only these nodes")


def _run(given: Given) -> int:
    text = _settings(given, given.options.filename)
    cluster = given.reading.cluster({"pods"})
    if "pods" in cluster.unread:
        raise Problem(cluster.unread["pods"])
    plugins = {pod["spec"].get("nodeName", ""): pod["metadata"] for pod in checks.pods_of(cluster, "node-plugin") if checks.is_ready(pod)}
    wanted = given.options.node or sorted(plugins)
    if not wanted:
        raise Problem("no node plugin is Ready: `kubectl intel-gpu doctor` says more")
    plans = [_plan(given, node, plugins.get(node), text) for node in wanted]
    if given.wants_json:
        given.write_json("Plan", {"at": cluster.at, "kubernetes": cluster.version, "nodes": plans})
    else:
        _print(given, plans)
    return FOUND if any(plan.error for plan in plans) else OK


def _settings(given: Given, path: str) -> str:
    """A settings file's text, or what a manifest of the plugin's ConfigMap holds; what no plugin would take is refused here."""
    text = given.read(path)
    try:
        document = given.parse(text, path)
        if isinstance(document, dict) and document.get("kind") == "ConfigMap":
            data = document.get("data")
            inner = data.get(KEY) if isinstance(data, dict) else None
            if not isinstance(inner, str):
                raise Misused(f"{path}: this ConfigMap has no data.{KEY}, where the node plugin's settings are")
            text, path = inner, f"{path}, data.{KEY}"
            document = given.parse(text, path)
        settings.decode_node(document, path)
    except SettingsInvalid as wrong:
        raise Misused(str(wrong)) from None
    if len(text.encode()) > LONGEST:
        raise Misused(f"{path}: {len(text.encode())} bytes, at most {LONGEST} can be sent to the plugins")
    return text


def _plan(given: Given, node: str, pod: dict[str, str] | None, text: str) -> NodePlan:
    if pod is None:
        return NodePlan(node, error="no node plugin is Ready there")
    try:
        # One word: a file that begins with `---` would be taken for a flag.
        ran = given.reading.run(pod["namespace"], pod["name"], [PLUGIN, "plan", f"--settings={text}"])
    except NoAnswer as silence:
        return NodePlan(node, error=str(silence))
    if ran.code:
        return NodePlan(node, error=ran.err.strip().removeprefix(f"{PLUGIN}: ") or f"{PLUGIN} plan ended with {ran.code}")
    return NodePlan(node, tuple(ran.out.splitlines()), ran.err.strip().removeprefix(f"{PLUGIN}: "))


def _print(given: Given, plans: list[NodePlan]) -> None:
    """Nodes with the same plan together."""
    alike: dict[NodePlan, list[str]] = {}
    for plan in plans:
        alike.setdefault(msgspec.structs.replace(plan, node=""), []).append(plan.node)
    for plan, nodes in alike.items():
        given.console.print(Text(", ".join(nodes), style="bold"))
        if plan.remark:
            given.console.print(Text(f"  {plan.remark}", style="dim"))
        for line in plan.lines or (() if plan.error else ("nothing would change",)):
            given.console.print(Text(f"  {line}"))
        if plan.error:
            given.console.print(Text(f"  {plan.error}", style="red"))


COMMAND = Command(
    name="plan",
    summary="what a settings file would do on each node; nothing is changed",
    epilog="It runs `gpu-node-plugin plan` in the plugins' pods, which needs the rights to get and create pods/exec. Exit code 1: a node "
    "would refuse it, or did not say; 2: the file is wrong.",
    flags=_flags,
    run=_run,
)
