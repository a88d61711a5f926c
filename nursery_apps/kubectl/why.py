"""`kubectl intel-gpu why CLAIM|POD`: why it is pending, device by device, or that it is not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from dra.explaining import explain
from dra.explaining.verdicts import Cause, ClaimVerdict, DeviceVerdict, Explanation, NodeVerdict, RequestVerdict
from nursery_apps.kubectl import words
from nursery_apps.kubectl.command import FOUND, OK, Command, Given
from nursery_apps.kubectl.problems import Missing, Misused
from nursery_apps.kubectl.reading import ALL

_KINDS = {
    "claim": "claim",
    "claims": "claim",
    "resourceclaim": "claim",
    "resourceclaims": "claim",
    "pod": "pod",
    "pods": "pod",
    "po": "pod",
}
_STYLES = {Cause.FITS: "green", Cause.HELD: "cyan", Cause.TAINT: "red", Cause.CEL_ERROR: "red"}


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="CLAIM|POD", help="claim/NAME, pod/NAME, or a name alone, looked for as a pod and then as a claim")


def _run(given: Given) -> int:
    kind, _, name = given.options.name.rpartition("/")
    if given.options.all_namespaces:
        raise Misused("why: one claim or pod is in one namespace; give it by -n instead of -A")
    if not name or (kind and kind.lower() not in _KINDS):
        raise Misused(f"why: {given.options.name!r} is neither claim/NAME, pod/NAME nor a name")
    namespace = given.namespace
    cluster = given.reading.cluster(ALL, namespace=namespace)
    pod = cluster.pod(namespace, name) if _KINDS.get(kind.lower(), "pod") == "pod" else None
    claim = cluster.claim(namespace, name) if _KINDS.get(kind.lower(), "claim") == "claim" else None
    if pod is not None:
        told = explain.pod(cluster, pod)
    elif claim is not None:
        told = explain.claim(cluster, claim)
    else:
        what = _KINDS.get(kind.lower(), "claim and no pod")
        raise Missing(f"there is no {what} {name} in namespace {namespace}" + "".join(f"; {line}" for line in words.unread(cluster)))
    if given.wants_json:
        unread = list(words.unread(cluster))
        given.write_json("GpuReasons", {"at": cluster.at, "kubernetes": cluster.version, "explanation": told, "unread": unread})
    else:
        _print(given, told)
        for line in words.unread(cluster):
            given.console.print(Text(line, style="yellow"))
    return OK if told.fine else FOUND


def _print(given: Given, told: Explanation) -> None:
    console = given.console
    for verdict in told.claims:
        _print_claim(given, verdict)
    if told.events and not told.fine:
        console.print(Text("What the cluster said last", style="bold"))
        for line in told.events:
            console.print(Text(f"  {line}"))
        console.print()
    for cause in told.causes:
        console.print(Text(cause))
    summary = Text(f"{told.subject}: ", style="bold")
    console.print(summary.append(told.summary, style="green" if told.fine else "not bold red"))
    if told.cure:
        console.print(Text("To do: ", style="bold").append(told.cure, style="not bold"))


def _print_claim(given: Given, verdict: ClaimVerdict) -> None:
    name = verdict.claim or f"(not made yet, {verdict.entry} of the pod)"
    title = Text(f"claim {verdict.namespace}/{name}: ", style="bold").append(
        str(verdict.state), style="green" if verdict.is_fine else "red"
    )
    given.console.print(title)
    if verdict.devices:
        given.console.print(Text(f"  has {', '.join(verdict.devices)}"))
    for cause in verdict.causes:
        given.console.print(Text(f"  {cause}"))
    for request in verdict.requests:
        _print_request(given, request)
    given.console.print()


def _print_request(given: Given, request: RequestVerdict) -> None:
    named = f"  request {request.request} wants" if request.request else "  wants"
    given.console.print(Text(f"{named} {request.wants}"))
    if not request.nodes:
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("  NODE", "DEVICE", "WHY NOT"):
        table.add_column(title, overflow="fold")
    for nodes in _alike(request.nodes):
        name = nodes[0].node if len(nodes) == 1 else f"{nodes[0].node} and {len(nodes) - 1} more"
        word = nodes[0].excluded or nodes[0].text
        table.add_row(Text(f"  {name}", style="bold"), Text(""), Text(word, style="green" if nodes[0].fits else "yellow"))
        for devices in _grouped(nodes[0].devices):
            many = devices[0].device if len(devices) == 1 else f"{devices[0].device} and {len(devices) - 1} more"
            table.add_row(Text(""), Text(many), Text(devices[0].text or "fits", style=_STYLES.get(devices[0].cause, "")))
    given.console.print(table)


def _grouped(devices: Sequence[DeviceVerdict]) -> list[list[DeviceVerdict]]:
    """Those that the same excludes."""
    found: dict[tuple[Cause, str], list[DeviceVerdict]] = {}
    for device in devices:
        found.setdefault((device.cause, device.text), []).append(device)
    return list(found.values())


def _alike(nodes: Sequence[NodeVerdict]) -> list[list[NodeVerdict]]:
    """Nodes of which the same is to be said."""
    found: dict[tuple[object, ...], list[NodeVerdict]] = {}
    for node in nodes:
        key = (node.excluded, node.text, tuple((device.device, device.cause, device.text) for device in node.devices))
        found.setdefault(key, []).append(node)
    return list(found.values())


COMMAND = Command(
    name="why",
    summary="why a claim or pod is pending, device by device",
    epilog="Exit code 1: it is pending, or cannot use what it was given. What the same excludes is shown once.",
    flags=_flags,
    run=_run,
)
