"""`gpu-controller`: not there yet."""

from __future__ import annotations

import sys


def main() -> int:
    """Say so and exit with 2."""
    print(
        "gpu-controller: not in this version. On Kubernetes 1.31 and newer the scheduler allocates and only gpu-node-plugin is needed; "
        "the controller is for classic DRA on 1.28 to 1.30.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
