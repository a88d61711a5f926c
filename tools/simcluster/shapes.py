"""Between the newest shape (v1 and v1beta2), in which objects are held, and the older ones of `resource.k8s.io`.

v1beta1 puts what belongs to a device under `basic` and has no `exactly` in a request; v1alpha3 moreover writes a capacity as a bare
quantity. v1alpha2 (1.28 to 1.30) is another model, which nothing is converted from or to. The converters never change what they are given.
"""

from __future__ import annotations

from typing import Final

from dra.structured import shapes
from tools.simcluster.kinds import CLAIM, RESOURCE_GROUP, SLICE, TEMPLATE, Json, Kind

_FLAT: Final = ("v1", "v1beta2", "v1alpha2")


def api_version(kind: Kind, version: str) -> str:
    return f"{kind.group}/{version}" if kind.group else version


def to_wire(kind: Kind, version: str, held: Json) -> Json:
    """The object as a client of `version` sees it."""
    body = {"apiVersion": api_version(kind, version), "kind": kind.kind, **held}
    if kind.group != RESOURCE_GROUP or version in _FLAT:
        return body
    if kind is SLICE:
        body["spec"] = _slice_spec_out(body.get("spec") or {}, bare=version == "v1alpha3")
    elif kind is CLAIM:
        body["spec"] = _claim_spec(body.get("spec") or {})
    elif kind is TEMPLATE:
        spec = body.get("spec") or {}
        body["spec"] = {**spec, "spec": _claim_spec(spec.get("spec") or {})}
    return body


def to_held(kind: Kind, version: str, sent: Json) -> Json:
    """What a client of `version` sent, as it is held; apiVersion and kind left out."""
    body = {key: value for key, value in sent.items() if key not in ("apiVersion", "kind")}
    if kind.group != RESOURCE_GROUP or version in _FLAT:
        return body
    if kind is SLICE:
        body["spec"] = shapes.slice_spec(version, body.get("spec") or {})
    elif kind is CLAIM:
        body["spec"] = shapes.claim_spec(version, body.get("spec") or {})
    elif kind is TEMPLATE:
        spec = body.get("spec") or {}
        body["spec"] = {**spec, "spec": shapes.claim_spec(version, spec.get("spec") or {})}
    return body


def _slice_spec_out(spec: Json, *, bare: bool) -> Json:
    if "devices" not in spec:
        return spec
    devices = []
    for device in spec["devices"] or ():
        basic = {key: value for key, value in device.items() if key != "name"}
        if bare and basic.get("capacity"):
            basic["capacity"] = {name: value.get("value") for name, value in basic["capacity"].items()}
        devices.append({"name": device.get("name"), "basic": basic})
    return {**spec, "devices": devices}


def _claim_spec(spec: Json) -> Json:
    devices = spec.get("devices") or {}
    if not devices.get("requests"):
        return spec
    return {**spec, "devices": {**devices, "requests": [_request_out(request) for request in devices["requests"]]}}


def _request_out(request: Json) -> Json:
    exactly = request.get("exactly")
    return request if exactly is None else {"name": request.get("name"), **exactly}
