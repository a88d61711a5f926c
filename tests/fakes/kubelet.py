"""The kubelet's side of its plugin sockets, spoken by the C core: what a real one sends, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import grpc
import trio

from dra.wire import dra_pb2, pluginregistration_pb2

V1 = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
V1BETA1 = "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"
V1ALPHA3 = "v1alpha3.Node"
SERVICES = (V1, V1BETA1, V1ALPHA3)


class Refusal(Exception):
    """A gRPC status other than OK."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status, self.details = status, details


class FakeKubelet:
    """Opens a new connection for every call, as the oldest kubelets do."""

    async def call(self, socket: str, method: str, request: bytes, *, timeout: float | None = 45.0) -> bytes:
        return await trio.to_thread.run_sync(partial(_call, socket, method, request, timeout))

    async def get_info(self, registrar: str) -> pluginregistration_pb2.PluginInfo:
        """With the kubelet's own deadline of a second."""
        answer = await self.call(registrar, "/pluginregistration.Registration/GetInfo", b"", timeout=1)
        return pluginregistration_pb2.PluginInfo.FromString(answer)

    async def notify(self, registrar: str, registered: bool, error: str = "") -> None:
        verdict = pluginregistration_pb2.RegistrationStatus(plugin_registered=registered, error=error)
        await self.call(registrar, "/pluginregistration.Registration/NotifyRegistrationStatus", verdict.SerializeToString(), timeout=5)

    async def prepare(
        self, endpoint: str, claims: Sequence[tuple[str, str, str]], *, service: str = V1
    ) -> Mapping[str, dra_pb2.NodePrepareResourceResponse]:
        """Claims as (namespace, uid, name)."""
        request = dra_pb2.NodePrepareResourcesRequest(claims=[dra_pb2.Claim(namespace=n, uid=u, name=m) for n, u, m in claims])
        answer = await self.call(endpoint, f"/{service}/NodePrepareResources", request.SerializeToString())
        return dra_pb2.NodePrepareResourcesResponse.FromString(answer).claims

    async def unprepare(self, endpoint: str, claims: Sequence[tuple[str, str, str]], *, service: str = V1) -> dict[str, str]:
        """Error texts by UID, empty for success."""
        request = dra_pb2.NodeUnprepareResourcesRequest(claims=[dra_pb2.Claim(namespace=n, uid=u, name=m) for n, u, m in claims])
        answer = await self.call(endpoint, f"/{service}/NodeUnprepareResources", request.SerializeToString())
        return {uid: outcome.error for uid, outcome in dra_pb2.NodeUnprepareResourcesResponse.FromString(answer).claims.items()}


def _call(socket: str, method: str, request: bytes, timeout: float | None) -> bytes:
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer: bytes = channel.unary_unary(method)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise Refusal(error.code().name, error.details() or "") from None
        return answer
