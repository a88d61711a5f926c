"""The webhook as the API server meets it: over TLS, one review after another."""

from __future__ import annotations

import ssl

import httpcore
import msgspec
import trio
import trustme

from dra.admission import PATH
from nursery_apps import tls
from nursery_apps.controller.admission import LIMITS, Admission
from nursery_apps.http_service import HttpService


def review(parameters: object) -> bytes:
    config = [{"opaque": {"driver": "gpu.intel.com", "parameters": parameters}}]
    asked = {
        "uid": "u1",
        "operation": "CREATE",
        "resource": {"group": "resource.k8s.io", "version": "v1", "resource": "resourceclaims"},
        "namespace": "ns",
        "object": {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {}}], "config": config}}},
    }
    return msgspec.json.encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked})


async def test_reviews_over_tls(nursery: trio.Nursery) -> None:
    outcomes: list[str] = []
    authority = trustme.CA()
    issued = authority.issue_cert("gpu-controller.intel-gpu.svc", "127.0.0.1")
    served = tls.served_with(issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())
    http = HttpService(Admission(on_outcome=outcomes.append), name="the webhook", limits=LIMITS, certificate=lambda: served)
    port = await nursery.start(http.serve, "127.0.0.1", 0)
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())

    async def post(
        body: bytes, path: str = f"{PATH}?timeout=10s", method: str = "POST", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        async with httpcore.AsyncConnectionPool(ssl_context=trusting) as pool:
            answer = await pool.request(method, f"https://127.0.0.1:{port}{path}", headers={"Content-Type": kind}, content=body)
            return answer.status, answer.content

    good = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "sharing": "exclusive"}
    status, body = await post(review(good))
    assert (status, msgspec.json.decode(body)["response"]) == (200, {"uid": "u1", "allowed": True})
    status, body = await post(review(good | {"sharing": 5}))
    refused = msgspec.json.decode(body)["response"]
    assert status == 200 and not refused["allowed"] and "ResourceClaim ns/c" in refused["status"]["message"]
    assert (await post(b"{}"))[0] == 400
    assert (await post(b"", "/"))[0] == 404
    assert (await post(b"", method="GET"))[0] == 405
    assert (await post(b"", kind="text/yaml"))[0] == 415
    assert (await post(b" " * (LIMITS.body_bytes + 1)))[0] == 413
    assert outcomes == ["allowed", "refused", "malformed"]
