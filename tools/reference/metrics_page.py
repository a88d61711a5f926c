"""docs/reference/metrics.md: every metric, from the registry itself."""

from __future__ import annotations

from nursery_apps.controller.metrics import ControllerMetrics
from nursery_apps.metrics import Metrics, Registry
from nursery_apps.node.health.telemetry_metrics import TelemetryMetrics

HEAD = """# Metrics

Made from the code by `tools/schemas`; do not edit.

Served at `/metrics` of the port in `probes.port`. Beside these there are Python's usual `process_*` metrics: CPU, memory, descriptors and
start time of the program itself.
"""
TABLE = """
| metric | type | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    node = Metrics()
    TelemetryMetrics(node, by_claim=True)
    programs = (("node plugin", node), ("controller", ControllerMetrics()))
    return HEAD + "".join(f"\n## The {name}\n{TABLE}{_rows(registry)}\n" for name, registry in programs)


def _rows(registry: Registry) -> str:
    return "\n".join(
        f"| `{one.name}` | {one.type} | {', '.join(f'`{label}`' for label in one.labels)} | {one.text} |" for one in registry.described
    )
