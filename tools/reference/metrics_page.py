"""docs/reference/metrics.md: every metric, from the registry itself."""

from __future__ import annotations

from nursery_apps.metrics import Metrics

HEAD = """# Metrics of the node plugin

Made from the code by `tools/schemas`; do not edit.

Served at `/metrics` of the port in `probes.port`. Beside these there are Python's usual `process_*` metrics: CPU, memory, descriptors and
start time of the driver itself.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    rows = (
        f"| `{one.name}` | {one.type} | {', '.join(f'`{label}`' for label in one.labels)} | {one.text} |" for one in Metrics().described
    )
    return HEAD + "\n".join(rows) + "\n"
