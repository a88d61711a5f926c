"""Writes docs/reference from the code, or checks that it says what the code says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from dra import settings
from dra.opaque_config import GpuConfig
from dra.settings import NodePluginConfiguration
from tools.reference import metrics_page, settings_page

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, bytes]:
    """Path below docs/reference -> content."""
    return {
        "node-plugin-configuration.schema.json": _schema(NodePluginConfiguration),
        "gpu-config.schema.json": _schema(GpuConfig),
        "settings.md": settings_page.page().encode(),
        "metrics.md": metrics_page.page().encode(),
    }


def main() -> int:
    """Exit code 1 if `--check` found a page that is missing or stale."""
    parser = argparse.ArgumentParser(prog="tools/schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not what the code says")
    options = parser.parse_args()
    directory = ROOT / "docs" / "reference"
    stale = []
    for name, content in pages().items():
        path = directory / name
        if path.exists() and path.read_bytes() == content:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not options.check:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if stale:
        print(f"stale, run tools/schemas: {', '.join(stale)}" if options.check else f"written: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale and options.check else 0


def _schema(kind: type[msgspec.Struct]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings.json_schema(kind), order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
