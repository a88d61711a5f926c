"""TinyPlugin as kubelets of 1.28 to 1.30 call it: with resource handles, answering CDI names."""

from __future__ import annotations

from typing import Any

from dra.wire import dra_classic_pb2
from tests.fakes.tiny_plugin import TinyPlugin


class ClassicPlugin(TinyPlugin):
    messages = dra_classic_pb2

    def __init__(self, *directories: str, name: str = "gpu.resource.intel.com", **more: Any) -> None:
        super().__init__(*directories, name=name, **more)
        self.handles: list[str] = []
        """Data of the handles, as they came with prepare and unprepare."""
        self.names: list[str] | None = None
        """CDI names that are answered instead of its own."""

    def prepare(self, method: str, request: Any) -> Any:
        self.calls.append((method, [claim.uid for claim in request.claims]))
        answer = dra_classic_pb2.NodePrepareResourcesResponse()
        for claim in request.claims:
            self.handles.append(claim.resource_handle)
            if self.errors:
                answer.claims[claim.uid].error = self.errors.pop(0)
                continue
            made = self.write_cdi(claim.uid)
            # A claim that is asked about twice has one entry.
            answer.claims[claim.uid].cdi_devices[:] = made if self.names is None else self.names
        return answer

    def unprepare(self, method: str, request: Any) -> Any:
        self.calls.append((method, [claim.uid for claim in request.claims]))
        answer = dra_classic_pb2.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            self.handles.append(claim.resource_handle)
            answer.claims[claim.uid].error = self.errors.pop(0) if self.errors else ""
            if not answer.claims[claim.uid].error:
                self.remove_cdi(claim.uid)
        return answer
