"""Writes docs/reference, the chart's schema and the plain alert rules from what they are made of, or checks that they say the same."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import msgspec

from dra import settings
from dra.controller_settings import ControllerConfiguration
from dra.opaque_config import GpuConfig
from dra.settings import NodePluginConfiguration
from tools.reference import attributes_page, chart_schema, events_page, hardware_page, health_page, metrics_page, rules_file, settings_page

ROOT = Path(__file__).parents[2]


@functools.cache
def pages() -> dict[str, bytes]:
    """Path from the repository's root -> content."""
    reference = {
        "events.md": events_page.page().encode(),
        "node-plugin-configuration.schema.json": _schema(NodePluginConfiguration),
        "controller-configuration.schema.json": _schema(ControllerConfiguration),
        "gpu-config.schema.json": _schema(GpuConfig),
        "settings.md": settings_page.page().encode(),
        "health.md": health_page.page().encode(),
        "metrics.md": metrics_page.page().encode(),
        "attributes.md": attributes_page.page().encode(),
    }
    elsewhere = {chart_schema.PATH: chart_schema.chart(), "docs/hardware.md": hardware_page.page().encode()}
    elsewhere |= {f"manifests/observability/{name}": rules_file.text(component).encode() for component, name in rules_file.FILES.items()}
    return {f"docs/reference/{name}": content for name, content in reference.items()} | elsewhere


def main() -> int:
    """Exit code 1 if `--check` found a page that is missing or stale."""
    parser = argparse.ArgumentParser(prog="tools/schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not what the code says")
    options = parser.parse_args()
    stale = []
    for name, content in pages().items():
        path = ROOT / name
        if path.exists() and path.read_bytes() == content:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if stale:
        print(f"stale, run tools/schemas: {', '.join(stale)}" if options.check else f"written: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale and options.check else 0


def _schema(kind: type[msgspec.Struct]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings.json_schema(kind), order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
