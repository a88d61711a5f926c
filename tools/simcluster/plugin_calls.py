"""The kubelet's side of its two gRPC protocols, by the C core. The messages are described here field by field, in a pool of their own:
nothing of the driver's own definitions is used."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]
import trio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_TEXT, _BOOL, _NUMBER = _FIELD.TYPE_STRING, _FIELD.TYPE_BOOL, _FIELD.TYPE_INT64

# Message -> fields in order of their numbers: (name, type or name of a message, repeated). Maps are lists of entries, as on the wire.
_MESSAGES: Final[dict[str, list[tuple[str, int | str, bool]]]] = {
    "InfoRequest": [],
    "PluginInfo": [("type", _TEXT, False), ("name", _TEXT, False), ("endpoint", _TEXT, False), ("supported_versions", _TEXT, True)],
    "RegistrationStatus": [("plugin_registered", _BOOL, False), ("error", _TEXT, False)],
    "RegistrationStatusResponse": [],
    "Claim": [("namespace", _TEXT, False), ("uid", _TEXT, False), ("name", _TEXT, False)],
    "Claims": [("claims", "Claim", True)],
    "Device": [
        ("request_names", _TEXT, True),
        ("pool_name", _TEXT, False),
        ("device_name", _TEXT, False),
        ("cdi_device_ids", _TEXT, True),
        ("share_id", _TEXT, False),
    ],
    "Prepared": [("devices", "Device", True), ("error", _TEXT, False)],
    "PreparedEntry": [("key", _TEXT, False), ("value", "Prepared", False)],
    "PrepareResponse": [("claims", "PreparedEntry", True)],
    "Unprepared": [("error", _TEXT, False)],
    "UnpreparedEntry": [("key", _TEXT, False), ("value", "Unprepared", False)],
    "UnprepareResponse": [("claims", "UnpreparedEntry", True)],
    "DeviceIdentifier": [("pool_name", _TEXT, False), ("device_name", _TEXT, False)],
    "DeviceHealth": [
        ("device", "DeviceIdentifier", False),
        ("health", _NUMBER, False),
        ("last_updated_time", _NUMBER, False),
        ("health_check_timeout_seconds", _NUMBER, False),
        ("message", _TEXT, False),
    ],
    "HealthResponse": [("devices", "DeviceHealth", True)],
    # Up to 1.30.
    "HandleClaim": [("namespace", _TEXT, False), ("uid", _TEXT, False), ("name", _TEXT, False), ("resource_handle", _TEXT, False)],
    "HandleClaims": [("claims", "HandleClaim", True)],
    "HandlePrepared": [("cdi_devices", _TEXT, True), ("error", _TEXT, False)],
    "HandlePreparedEntry": [("key", _TEXT, False), ("value", "HandlePrepared", False)],
    "HandlesResponse": [("claims", "HandlePreparedEntry", True)],
    "HandleRequest": [
        ("namespace", _TEXT, False),
        ("claim_uid", _TEXT, False),
        ("claim_name", _TEXT, False),
        ("resource_handle", _TEXT, False),
    ],
    "HandleResponse": [("cdi_devices", _TEXT, True)],
}
PACKAGE: Final = "simulated.kubelet"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="simulated/kubelet.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind, repeated) in enumerate(fields, start=1):
            field = message.field.add(name=field_name, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                field.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES: Final = _classes()
"""By the names of the table above."""

DIAL_SECONDS: Final = 10.0
INFO_SECONDS: Final = 1.0
NOTIFY_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 3600.0
CALL_SECONDS: Final = 45.0
"""Deadline of prepare and unprepare in Kubernetes 1.28 and newer."""

Reference = tuple[str, str, str]
"""A claim's namespace, uid and name."""

SERVICES: Final = {
    "v1.DRAPlugin": "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin",
    "v1beta1.DRAPlugin": "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin",
    "v1alpha3.NodeService": "v1alpha3.Node",
}


class CallFailed(Exception):
    """A gRPC status other than OK: `code` is its name, UNAVAILABLE."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {details}")
        self.code = code


class Connection:
    """A channel to a unix socket. Its state is told to `on_state` from the event loop: READY, IDLE, TRANSIENT_FAILURE ..."""

    def __init__(self, path: str, *, authority: str | None = None, on_state: Callable[[str], None] | None = None) -> None:
        self.state = "IDLE"
        self._on_state = on_state
        self._token = trio.lowlevel.current_trio_token()
        options: list[tuple[str, Any]] = [
            ("grpc.default_authority", quote(path, safe="") if authority is None else authority),
            # Each connection by itself: two plugins behind one path are two instances.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            # What comes back is found quickly; grpc-go begins with a second.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(f"unix:{path}", options=options)
        if on_state is not None:
            self._channel.subscribe(self._tell, try_to_connect=True)

    def _tell(self, state: grpc.ChannelConnectivity) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._told, state.name)

    def _told(self, state: str) -> None:
        self.state = state
        if self._on_state is None:
            return
        if state == "IDLE":
            # The kubelet keeps its connection up: as soon as it is idle it connects again.
            self._channel.unsubscribe(self._tell)
            self._channel.subscribe(self._tell, try_to_connect=True)
        self._on_state(state)

    async def call(self, method: str, request: Any, answer: Any, seconds: float) -> Any:
        """
        Raises:
            CallFailed
        """
        done = trio.Event()

        def finished(_future: Any) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(done.set)

        future = self._channel.unary_unary(
            method, request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString
        ).future(request, timeout=seconds)
        future.add_done_callback(finished)
        try:
            await done.wait()
        finally:
            future.cancel()
        try:
            return future.result()
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from error

    async def stream(self, method: str, request: Any, answer: Any, take: Callable[[Any], None]) -> None:
        """Until the stream ends well; `take` is given each message from the event loop, and none after this has returned.

        Raises:
            CallFailed
        """
        ended, taking = trio.Event(), True
        call = self._channel.unary_stream(
            method, request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString
        )(request)

        def taken(message: Any) -> None:
            if taking:
                take(message)

        def read() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                with contextlib.suppress(grpc.RpcError):
                    for message in call:
                        self._token.run_sync_soon(taken, message)
                self._token.run_sync_soon(ended.set)

        threading.Thread(target=read, daemon=True).start()
        try:
            await ended.wait()
        finally:
            taking = False
            call.cancel()
        if call.code() is not grpc.StatusCode.OK:
            raise CallFailed(call.code().name, call.details() or "")

    def close(self) -> None:
        if self._on_state is None:
            self._channel.close()
            return
        self._on_state = None
        self._channel.unsubscribe(self._tell)
        # The C core's thread that watches the state looks every 0.2 s whether it is still wanted, and falls over a closed channel.
        closing = threading.Timer(0.5, self._channel.close)
        closing.daemon = True
        closing.start()


async def info(connection: Connection) -> Any:
    """`PluginInfo{type, name, endpoint, supported_versions}`."""
    method = "/pluginregistration.Registration/GetInfo"
    return await connection.call(method, MESSAGES["InfoRequest"](), MESSAGES["PluginInfo"], INFO_SECONDS)


async def notify(connection: Connection, error: str = "") -> None:
    request = MESSAGES["RegistrationStatus"](plugin_registered=not error, error=error)
    method = "/pluginregistration.Registration/NotifyRegistrationStatus"
    await connection.call(method, request, MESSAGES["RegistrationStatusResponse"], NOTIFY_SECONDS)


async def watch_resources(connection: Connection) -> None:
    """
    Raises:
        CallFailed
    """
    method = "/v1alpha3.Node/NodeListAndWatchResources"
    await connection.call(method, MESSAGES["InfoRequest"](), MESSAGES["InfoRequest"], WATCH_SECONDS)


async def watch_health(connection: Connection, service: str, take: Callable[[Any], None]) -> None:
    """`take` is given each message: `devices` with `device`, `health` as a number, and so on.

    Raises:
        CallFailed
    """
    await connection.stream(f"/{service}/NodeWatchResources", MESSAGES["InfoRequest"](), MESSAGES["HealthResponse"], take)


async def prepare(connection: Connection, service: str, claims: list[Reference], seconds: float = CALL_SECONDS) -> dict[str, Any]:
    """
    Args:
        service: key of SERVICES.
    Returns:
        By UID: a message with `devices` and `error`.
    """
    method = f"/{SERVICES[service]}/NodePrepareResources"
    answer = await connection.call(method, _claims(claims), MESSAGES["PrepareResponse"], seconds)
    return {entry.key: entry.value for entry in answer.claims}


async def unprepare(connection: Connection, service: str, claims: list[Reference], seconds: float = CALL_SECONDS) -> dict[str, Any]:
    """By UID: a message with `error`."""
    method = f"/{SERVICES[service]}/NodeUnprepareResources"
    answer = await connection.call(method, _claims(claims), MESSAGES["UnprepareResponse"], seconds)
    return {entry.key: entry.value for entry in answer.claims}


def _claims(claims: list[Reference]) -> Any:
    return MESSAGES["Claims"](claims=[MESSAGES["Claim"](namespace=namespace, uid=uid, name=name) for namespace, uid, name in claims])
