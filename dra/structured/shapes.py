"""From the older shapes of `resource.k8s.io` to the newest (v1 and v1beta2), in which the rules read.

v1beta1 puts what belongs to a device under `basic` and has no `exactly` in a request; v1alpha3 moreover writes a capacity as a bare
quantity. Nothing here changes what it is given.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

VERSIONS: Final = ("v1", "v1beta2", "v1beta1", "v1alpha3")
"""Newest first."""
_NEWEST: Final = ("v1", "v1beta2")
_EXACT: Final = ("deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity", "derivedAttributes")


def slice_spec(version: str, spec: Json) -> Json:
    """`spec` of a ResourceSlice."""
    if version in _NEWEST or "devices" not in spec:
        return spec
    devices = []
    for device in spec["devices"] or ():
        flat = {"name": device.get("name"), **(device.get("basic") or {})}
        if version == "v1alpha3" and flat.get("capacity"):
            flat["capacity"] = {name: {"value": value} for name, value in flat["capacity"].items()}
        devices.append(flat)
    return {**spec, "devices": devices}


def claim_spec(version: str, spec: Json) -> Json:
    """`spec` of a ResourceClaim, or what a template has for one."""
    devices = spec.get("devices") or {}
    if version in _NEWEST or not devices.get("requests"):
        return spec
    return {**spec, "devices": {**devices, "requests": [_request(request) for request in devices["requests"]]}}


def _request(request: Json) -> Json:
    exactly = {key: request[key] for key in _EXACT if key in request}
    rest = {key: value for key, value in request.items() if key not in _EXACT}
    return {**rest, "exactly": exactly} if exactly else rest
