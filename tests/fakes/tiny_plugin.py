"""A DRA plugin of a few lines on grpcio's C core: says yes to everything and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import trio

from dra.wire import dra_pb2, pluginregistration_pb2

VERSIONS = ["v1.DRAPlugin", "v1beta1.DRAPlugin", "1.0.0"]


class TinyPlugin:
    """Give it a directory for its DRA socket (short paths!) and the kubelet's registry and CDI directories."""

    def __init__(
        self,
        directory: str,
        registry: str,
        cdi: str,
        *,
        name: str = "gpu.intel.com",
        versions: list[str] | None = None,
        seen_directory: str = "",
        edits: Callable[[str], dict[str, Any]] = lambda name: {"deviceNodes": [{"path": f"/dev/{name}"}]},
    ) -> None:
        """
        Args:
            seen_directory: what the kubelet calls `directory`, where that is another name.
            edits: CDI device -> its containerEdits.
        """
        self.endpoint, self.socket, self.name = f"{directory}/{name}.sock", f"{registry}/{name}-reg.sock", name
        self._seen_endpoint = f"{seen_directory or directory}/{name}.sock"
        self._edits = edits
        self._cdi, self._versions = cdi, VERSIONS if versions is None else versions
        self.calls: list[tuple[str, list[str]]] = []
        """(method path, claim UIDs)"""
        self.verdicts: list[tuple[bool, str]] = []
        self.errors: list[str] = []
        """Given to the next calls instead of success."""
        self.devices: list[str] = ["gpu-0"]
        self.requests: list[str] = []
        self.cdi_version = "0.5.0"
        self._server: grpc.Server | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> TinyPlugin:
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self._server.add_insecure_port(f"unix:{self.endpoint}")
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        Path(self.socket).unlink(missing_ok=True)
        self._server.stop(0).wait(5)

    async def until(self, predicate: Callable[[], object], *, seconds: float = 5) -> None:
        """Until what the plugin was asked satisfies the predicate."""

        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(predicate, timeout=seconds), f"calls {self.calls}, verdicts {self.verdicts}"

        await trio.to_thread.run_sync(wait)

    def answered(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def info(self) -> Any:
        return pluginregistration_pb2.PluginInfo(
            type="DRAPlugin", name=self.name, endpoint=self._seen_endpoint, supported_versions=self._versions
        )

    def notified(self, status: Any) -> Any:
        self.verdicts.append((status.plugin_registered, status.error))
        return pluginregistration_pb2.RegistrationStatusResponse()

    def prepare(self, method: str, request: Any) -> Any:
        self.calls.append((method, [claim.uid for claim in request.claims]))
        answer = dra_pb2.NodePrepareResourcesResponse()
        for claim in request.claims:
            if self.errors:
                answer.claims[claim.uid].error = self.errors.pop(0)
                continue
            named = [f"{claim.uid}-{device}" for device in self.devices]
            edits = [{"name": name, "containerEdits": self._edits(name)} for name in named]
            spec = {"cdiVersion": self.cdi_version, "kind": "example.com/gpu", "devices": edits}
            Path(self._cdi, f"{claim.uid}.json").write_text(json.dumps(spec))
            for device, name in zip(self.devices, named, strict=True):
                answer.claims[claim.uid].devices.add(
                    request_names=self.requests, pool_name="node1", device_name=device, cdi_device_ids=[f"example.com/gpu={name}"]
                )
        return answer

    def unprepare(self, method: str, request: Any) -> Any:
        self.calls.append((method, [claim.uid for claim in request.claims]))
        answer = dra_pb2.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            answer.claims[claim.uid].error = self.errors.pop(0) if self.errors else ""
            Path(self._cdi, f"{claim.uid}.json").unlink(missing_ok=True)
        return answer

    def methods(self) -> list[str]:
        return [method.rpartition("/")[2] for method, _ in self.calls]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, plugin: TinyPlugin) -> None:
        self._plugin = plugin

    def service(self, call: Any) -> Any:
        plugin, method = self._plugin, call.method
        table = {
            "GetInfo": (pluginregistration_pb2.InfoRequest, lambda request: plugin.info()),
            "NotifyRegistrationStatus": (pluginregistration_pb2.RegistrationStatus, plugin.notified),
            "NodePrepareResources": (dra_pb2.NodePrepareResourcesRequest, lambda request: plugin.prepare(method, request)),
            "NodeUnprepareResources": (dra_pb2.NodeUnprepareResourcesRequest, lambda request: plugin.unprepare(method, request)),
        }
        if method.rpartition("/")[2] not in table:
            return None
        kind, answer = table[method.rpartition("/")[2]]

        def answer_and_tell(request: Any, _context: grpc.ServicerContext) -> Any:
            try:
                return answer(request)
            finally:
                plugin.answered()

        return grpc.unary_unary_rpc_method_handler(
            answer_and_tell,
            request_deserializer=kind.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
