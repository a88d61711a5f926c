"""`kubectl intel-gpu doctor`: is the cluster, and is each node, as the driver needs it?"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from dra.explaining import checks, claim_checks, feature_gates, installation, node_checks
from dra.explaining.checks import Finding, Verdict
from dra.explaining.cluster import Cluster, Json, key_of
from nursery_apps.kubectl import inspection
from nursery_apps.kubectl.command import FOUND, OK, Command, Given, gpu_nodes
from nursery_apps.kubectl.reading import ALL

_STYLES = {Verdict.OK: "green", Verdict.UNKNOWN: "dim", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}
PROBES_PORT = 9176
"""Where a pod does not say."""
SILENT_AT_MOST = 3
"""Without a right, or a way to the nodes, none of them answers, and each may take a request's whole time."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="what is well, too")


def _run(given: Given) -> int:
    cluster = given.reading.cluster(ALL, claims_namespace=given.claims_namespace, needed=())
    installed = inspection.read(given.reading, cluster)
    findings = [
        *checks.of_cluster(cluster),
        *feature_gates.findings(cluster, installed.gates),
        *installation.findings(cluster, installed),
        *claim_checks.findings(cluster),
        *node_checks.of_nodes(cluster, gpu_nodes(cluster), _readiness(given, cluster)),
    ]
    code = FOUND if checks.worst(findings) is Verdict.PROBLEM else OK
    if given.wants_json:
        given.write_json("Diagnosis", {"at": cluster.at, "kubernetes": cluster.version, "findings": findings})
        return code
    shown = [finding for finding in findings if given.options.all or finding.verdict is not Verdict.OK]
    if shown:
        given.console.print(_table(shown))
    count = collections.Counter(finding.verdict for finding in findings)
    given.console.print(", ".join(f"{count[verdict]} {verdict}" for verdict in reversed(Verdict)))
    return code


def _readiness(given: Given, cluster: Cluster) -> dict[str, str]:
    """What plugins that are not Ready say; of those that cannot be asked, nothing. Of the others the kubelet has heard that all is well."""
    said: dict[str, str] = {}
    silent = 0
    gone = {node["metadata"]["name"] for node in cluster.nodes if not checks.is_ready(node)}
    for pod in checks.pods_of(cluster, "node-plugin"):
        if checks.is_ready(pod) or pod["spec"].get("nodeName", "") in gone or silent == SILENT_AT_MOST:
            continue
        metadata = pod["metadata"]
        text = given.reading.proxied(metadata["namespace"], f"{metadata['name']}:{_port(pod)}", "readyz")
        if text:
            said[key_of(pod)] = text
        else:
            silent += 1
    return said


def _port(pod: Json) -> int:
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or () if port.get("name") == "http"]
    return int(ports[0]["containerPort"]) if ports else PROBES_PORT


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "NODE", "WHAT", "SEEN", "TO DO"):
        table.add_column(title, overflow="fold")
    for alike in _alike(findings):
        finding = alike[0]
        about = finding.about or "-"
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        about += f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        table.add_row(verdict, *map(Text, (about, finding.check, finding.seen, finding.cure)))
    return table


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Nodes of which the same is to be said; the worst first."""
    found: dict[tuple[Verdict, str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: -list(Verdict).index(each.verdict)):
        found.setdefault((finding.verdict, finding.check, finding.seen, finding.cure), []).append(finding)
    return list(found.values())


COMMAND = Command(
    name="doctor",
    summary="whether cluster and nodes are as the driver needs them, with a cure where they are not",
    epilog="Exit code 1: there is a problem; warnings and what nobody can see from here are none.",
    flags=_flags,
    run=_run,
)
