"""Another driver on the node, on grpcio's C core: gives every claim an environment variable. Says when it is
registered; runs in the node until its input ends.

python -m tests.e2e.other_driver
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from tests.fakes.tiny_plugin import TinyPlugin

NAME = "other.example.com"


class OtherDriver(TinyPlugin):
    def notified(self, status: Any) -> Any:
        print("registered", flush=True)
        return super().notified(status)

    def prepare(self, method: str, request: Any) -> Any:
        answer = super().prepare(method, request)
        for claim in request.claims:
            edits = [{"name": f"{claim.uid}-{device}", "containerEdits": {"env": ["OTHER=here"]}} for device in self.devices]
            spec = {"cdiVersion": self.cdi_version, "kind": "example.com/gpu", "devices": edits}
            pathlib.Path("/var/run/cdi", f"{claim.uid}.json").write_text(json.dumps(spec))
        return answer


def main() -> None:
    kubelet = "/var/lib/kubelet"
    with OtherDriver(f"{kubelet}/plugins", f"{kubelet}/plugins_registry", "/var/run/cdi", name=NAME):
        sys.stdin.read()


if __name__ == "__main__":
    main()
