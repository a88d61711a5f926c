"""A DRA plugin of a few lines on grpcio's C core: says yes to everything and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import trio

from dra.wire import dra_health_pb2, dra_pb2, pluginregistration_pb2

VERSIONS = ["v1.DRAPlugin", "v1beta1.DRAPlugin", "1.0.0"]


class TinyPlugin:
    """Give it a directory for its DRA socket (short paths!) and the kubelet's registry and CDI directories."""

    messages: Any = dra_pb2

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
        self.unknown_services: set[str] = set()
        """Answered with UNIMPLEMENTED."""
        self._health: Any = None
        self._health_told = 0
        self._watching: list[Any] = []
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
            for device, name in zip(self.devices, self.write_cdi(claim.uid), strict=True):
                answer.claims[claim.uid].devices.add(
                    request_names=self.requests, pool_name="node1", device_name=device, cdi_device_ids=[name]
                )
        return answer

    def write_cdi(self, uid: str) -> list[str]:
        """The file of a claim; the qualified names of its devices."""
        named = [f"{uid}-{device}" for device in self.devices]
        edits = [{"name": name, "containerEdits": self._edits(name)} for name in named]
        spec = {"cdiVersion": self.cdi_version, "kind": "example.com/gpu", "devices": edits}
        Path(self._cdi, f"{uid}.json").write_text(json.dumps(spec))
        return [f"example.com/gpu={name}" for name in named]

    def remove_cdi(self, uid: str) -> None:
        Path(self._cdi, f"{uid}.json").unlink(missing_ok=True)

    def unprepare(self, method: str, request: Any) -> Any:
        self.calls.append((method, [claim.uid for claim in request.claims]))
        answer = dra_pb2.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            answer.claims[claim.uid].error = self.errors.pop(0) if self.errors else ""
            self.remove_cdi(claim.uid)
        return answer

    def say(self, health: Mapping[str, tuple[int, str]], *, timeout: int = 0) -> None:
        """Device -> (1 healthy or 2 unhealthy, message), for all who watch now or later; before the first word nothing is served."""
        devices = [
            dra_health_pb2.DeviceHealth(
                device={"pool_name": "node1", "device_name": name},
                health=status,  # type: ignore[arg-type]
                health_check_timeout_seconds=timeout,
                message=message,
            )
            for name, (status, message) in health.items()
        ]
        with self._changed:
            self._health = dra_health_pb2.NodeWatchResourcesResponse(devices=devices)
            self._health_told += 1
            self._changed.notify_all()

    def watch(self, method: str, context: Any) -> Iterator[Any]:
        self.calls.append((method, []))
        told = 0
        context.add_callback(self.answered)
        self._watching.append(context)
        self.answered()
        while context.is_active():
            with self._changed:
                while self._health_told == told and context.is_active():
                    self._changed.wait()
                told, health = self._health_told, self._health
            yield health

    async def end_watches(self) -> None:
        """As soon as there is one."""
        await self.until(lambda: self._watching)
        for context in self._watching:
            context.cancel()

    def methods(self) -> list[str]:
        return [method.rpartition("/")[2] for method, _ in self.calls]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, plugin: TinyPlugin) -> None:
        self._plugin = plugin

    def service(self, call: Any) -> Any:
        plugin, method = self._plugin, call.method
        if method.endswith("/NodeWatchResources") and plugin._health is not None:
            return grpc.unary_stream_rpc_method_handler(
                lambda _request, context: plugin.watch(method, context),
                response_serializer=lambda message: message.SerializeToString(),
            )
        table = {
            "GetInfo": (pluginregistration_pb2.InfoRequest, lambda request: plugin.info()),
            "NotifyRegistrationStatus": (pluginregistration_pb2.RegistrationStatus, plugin.notified),
            "NodePrepareResources": (plugin.messages.NodePrepareResourcesRequest, lambda request: plugin.prepare(method, request)),
            "NodeUnprepareResources": (plugin.messages.NodeUnprepareResourcesRequest, lambda request: plugin.unprepare(method, request)),
        }
        if method.rpartition("/")[2] not in table or method.split("/")[1] in plugin.unknown_services:
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
