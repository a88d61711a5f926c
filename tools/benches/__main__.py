"""`tools/bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.benches import figures
from tools.benches.groups import GROUPS
from tools.benches.world import CDI_PLACE


def main() -> int:
    names = ", ".join(GROUPS)
    parser = argparse.ArgumentParser(prog="tools/bench", description=f"Measure the shipped daemon. Groups: {names}.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="groups to measure (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in GROUPS]
    if unknown:
        parser.error(f"no group {unknown[0]}; there are {names}")
    found: list[figures.Figure] = []
    for name in options.names or GROUPS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found += GROUPS[name]()
    figures.show(found)
    print(f"Journal on the file system of /tmp, with real syncs; CDI files below {CDI_PLACE}.")
    print("Daemon, API server and client share this machine: compare figures of one run only.")
    if options.json:
        figures.write(found, Path(options.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
