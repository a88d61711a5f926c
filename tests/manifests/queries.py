"""What a query asks for, held against what the programs export."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import promql_parser

from nursery_apps.controller.metrics import ControllerMetrics
from nursery_apps.metrics import Metrics
from nursery_apps.node.health.telemetry_metrics import TelemetryMetrics

JOBS: Final = ("intel-gpu-node-plugin", "intel-gpu-controller")
TARGET: Final = frozenset({"job", "node", "pod", "instance", "namespace", "container", "endpoint"})
"""Labels that scraping adds."""
FOREIGN: Final[Mapping[str, frozenset[str]]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
    "process_start_time_seconds": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "process_cpu_seconds_total": frozenset(),
    "process_open_fds": frozenset(),
    # XPU Manager's exporter: 2.x, then 1.x.
    "hw_temperature_celsius": frozenset({"pci_bdf", "hw_sensor_location", "statistic", "hw_id", "hw_name"}),
    "xpum_max_temperature_celsius": frozenset({"pci_bdf", "pci_dev", "location"}),
    "xpum_cache_errors_total": frozenset({"pci_bdf", "pci_dev", "type"}),
    "xpum_resets_total": frozenset({"pci_bdf", "pci_dev"}),
}
"""Of Prometheus itself, of Python's client, of others."""


@functools.cache
def exported() -> Mapping[str, frozenset[str]]:
    """Name of a series -> its labels, of both programs."""
    node = Metrics()
    TelemetryMetrics(node, by_claim=True)
    found: dict[str, frozenset[str]] = {}
    for one in (*node.described, *ControllerMetrics().described):
        found[one.name] = frozenset(one.labels)
        if one.type == "histogram":
            found |= {f"{one.name}_bucket": frozenset({*one.labels, "le"})}
            found |= {f"{one.name}_{part}": frozenset(one.labels) for part in ("sum", "count")}
    return found


def faults(query: str) -> list[str]:
    """What is wrong with it; empty if nothing is.

    Raises:
        ValueError: it is no PromQL.
    """
    parsed = promql_parser.parse(query)
    known, made, said = set(TARGET), set(), []
    for selector in _selectors(parsed):
        name = selector.name
        labels = FOREIGN.get(name, exported().get(name))
        if labels is None:
            said.append(f"{name} is not exported")
            continue
        known |= labels
        said += [f"{name} has no label {one.name}" for one in selector.matchers.matchers if one.name not in labels | TARGET]
    for node in _walk(parsed):
        if isinstance(node, promql_parser.Call) and node.func.name == "label_replace":
            made.add(node.args[1].val)
            if node.args[3].val not in known | made:
                said.append(f"label_replace reads {node.args[3].val}, which nothing in the query has")
    for node in _walk(parsed):
        said += [f"no series in the query has the label {label}" for label in _named(node) if label not in known | made]
    return said


def _named(node: Any) -> list[str]:
    match node:
        case promql_parser.AggregateExpr() if node.modifier is not None:
            return list(node.modifier.labels)
        case promql_parser.BinaryExpr() if node.modifier is not None:
            matching = list(node.modifier.matching.labels) if node.modifier.matching is not None else []
            return [*matching, *(node.modifier.group_labels or ())]
    return []


def _selectors(parsed: Any) -> Iterator[Any]:
    for node in _walk(parsed):
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        elif isinstance(node, promql_parser.MatrixSelector):
            yield node.vector_selector


def _walk(node: Any) -> Iterator[Any]:
    yield node
    children: list[Any] = []
    match node:
        case promql_parser.BinaryExpr():
            children = [node.lhs, node.rhs]
        case promql_parser.Call():
            children = list(node.args)
        case promql_parser.AggregateExpr():
            children = [node.expr, *([node.param] if node.param is not None else [])]
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            children = [node.expr]
    for child in children:
        yield from _walk(child)
