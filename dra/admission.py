"""Judges what users write for this driver before it is stored: `GpuConfig` in ResourceClaims and ResourceClaimTemplates.

What would certainly be refused at prepare is refused here, minutes earlier and to the one who wrote it. What depends on the class or on
what is allocated passes. The review itself is checked first: one that makes no sense gets no verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from dra import opaque_config
from dra.errors import ClaimRefused
from dra.kube.claims import Config, ExactRequest, Opaque
from dra.names import DRIVER_NAME

PATH: Final = "/validate"
BODY_BYTES: Final = 8 << 20
"""A review holds the new object and the old one, each of at most 1.5 MiB as etcd stores it and somewhat more in JSON."""
API_VERSION: Final = "admission.k8s.io/v1"
GROUP: Final = "resource.k8s.io"
CLAIM: Final = "resourceclaims"
TEMPLATE: Final = "resourceclaimtemplates"
KINDS: Final = {CLAIM: "ResourceClaim", TEMPLATE: "ResourceClaimTemplate"}
MESSAGES: Final = 8
"""Faults that are told at once; who has more of them reads on after mending these."""


class Malformed(Exception):
    """It is no review, or one that cannot be understood."""


class Verdict(msgspec.Struct, frozen=True):
    body: bytes
    """The review with its response."""
    outcome: str
    """`allowed`, `refused`, or `foreign` for what is none of ours."""
    message: str = ""


class _Resource(msgspec.Struct):
    group: str = ""
    version: str = ""
    resource: str = ""


class _Request(msgspec.Struct, rename="camel"):
    uid: str
    operation: str
    resource: _Resource
    name: str = ""
    namespace: str = ""
    sub_resource: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    request: _Request | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    generate_name: str = ""


class _SubRequest(msgspec.Struct):
    name: str = ""


class _DeviceRequest(msgspec.Struct, rename="camel"):
    name: str = ""
    exactly: ExactRequest | None = None
    first_available: list[_SubRequest] | None = None
    admin_access: bool | None = None
    """Where v1beta1 and v1alpha3 have it."""


class _DeviceConfig(msgspec.Struct):
    requests: list[str] | None = None
    opaque: Opaque | None = None


class _Devices(msgspec.Struct):
    requests: list[_DeviceRequest] | None = None
    config: list[_DeviceConfig] | None = None


class _Spec(msgspec.Struct):
    devices: _Devices = msgspec.field(default_factory=_Devices)


class _Claim(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Template(msgspec.Struct):
    class Inner(msgspec.Struct):
        spec: _Spec = msgspec.field(default_factory=_Spec)

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: Inner = msgspec.field(default_factory=Inner)


def judge(body: bytes) -> Verdict:
    """
    Raises:
        Malformed: says what is wrong with the review.
    """
    review = _decoded(body, _Review, "AdmissionReview")
    if (review.api_version, review.kind) != (API_VERSION, "AdmissionReview"):
        raise Malformed(f"apiVersion and kind are {review.api_version[:60]!r} {review.kind[:60]!r}, want {API_VERSION} AdmissionReview")
    request = review.request
    if request is None or not request.uid:
        raise Malformed("the review has no request, or the request no uid")
    what = request.resource
    if what.group != GROUP or what.resource not in KINDS or request.sub_resource or request.operation not in ("CREATE", "UPDATE"):
        return _verdict(request, "foreign", ())
    metadata, devices, where = _parts(what.resource, request.object, "object")
    if request.operation == "UPDATE" and _config(_parts(what.resource, request.old_object, "oldObject")[1]) == _config(devices):
        # What was stored before anybody judged it has to stay changeable, or nobody could take its finalizers away.
        return _verdict(request, "allowed", ())
    ours = [entry for entry in devices.config or () if entry.opaque is not None and entry.opaque.driver == DRIVER_NAME]
    if not ours:
        return _verdict(request, "foreign", ())
    named = metadata.name or request.name or f"{metadata.generate_name}*"
    about = f"{KINDS[what.resource]} {request.namespace}/{named}"
    faults = [f"{about}: {where}{fault}" for fault in _faults(devices)]
    return _verdict(request, "refused" if faults else "allowed", faults)


def _faults(devices: _Devices) -> list[str]:
    """Each begins with the place below `devices`."""
    found: list[str] = []
    entries: list[Config] = []
    for index, entry in enumerate(devices.config or ()):
        if entry.opaque is None or entry.opaque.driver != DRIVER_NAME:
            continue
        try:
            opaque_config.decode(bytes(entry.opaque.parameters))
        except ClaimRefused as refusal:
            requests = f" (for {_listed(entry.requests)})" if entry.requests else ""
            found.append(f"config[{index}].opaque.parameters{requests}: {refusal}")
        entries.append(Config(source="FromClaim", requests=entry.requests, opaque=entry.opaque))
    return found or _contradictions(devices.requests or (), entries)


def _contradictions(requests: Sequence[_DeviceRequest], entries: Sequence[Config]) -> list[str]:
    """What the entries together ask for, request by request.

    Only its class tells which driver a request is for. One that an entry of ours names is ours; where none is named, a fault counts if
    every request has one.
    """
    faults: dict[str, str | None] = {}
    named: set[str] = set()
    for request in requests:
        admin = bool(request.admin_access or (request.exactly is not None and request.exactly.admin_access))
        for name in [f"{request.name}/{each.name}" for each in request.first_available or ()] or [request.name]:
            applying = [entry for entry in entries if not entry.requests or name in entry.requests or request.name in entry.requests]
            if any(entry.requests for entry in applying):
                named.add(name)
            if applying:
                faults[name] = _contradiction(applying, name, admin)
    certain = [text for name, text in faults.items() if text is not None and name in named]
    if not certain and faults and all(text is not None for text in faults.values()):
        certain = [text for text in faults.values() if text is not None]
    return [f"config: {text}" for text in certain]


def _contradiction(entries: Sequence[Config], name: str, admin: bool) -> str | None:
    said = [opaque_config.decode(bytes(entry.opaque.parameters)) for entry in entries if entry.opaque is not None]
    sharing = next((each.sharing for each in reversed(said) if each.sharing is not msgspec.UNSET), "")
    driver = next((each.driver for each in reversed(said) if each.driver is not msgspec.UNSET), opaque_config.DRM)
    if sharing == "shared" and driver != opaque_config.DRM:
        return f"fields 'driver' and 'sharing': request {name!r} relies on sharing, and {driver} would take the GPU from the others"
    try:
        # Whether a share will be allocated is not known yet: it is taken to be as the claim relies on.
        opaque_config.effective(entries, name, admin=admin, shared=sharing == "shared")
    except ClaimRefused as refusal:
        return str(refusal)
    return None


def _parts(resource: str, data: msgspec.Raw, field: str) -> tuple[_Metadata, _Devices, str]:
    """Metadata, the part about devices, and where that is."""
    if resource == CLAIM:
        claim = _decoded(bytes(data), _Claim, f"request.{field}")
        return claim.metadata, claim.spec.devices, "spec.devices."
    template = _decoded(bytes(data), _Template, f"request.{field}")
    return template.metadata, template.spec.spec.devices, "spec.spec.devices."


def _config(devices: _Devices) -> list[tuple[list[str], Any]]:
    """What ours are, as values: the server writes numbers and spaces as it likes."""
    return [
        (entry.requests or [], _value(entry.opaque.parameters))
        for entry in devices.config or ()
        if entry.opaque is not None and entry.opaque.driver == DRIVER_NAME
    ]


def _value(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return bytes(raw)


def _verdict(request: _Request, outcome: str, faults: Sequence[str]) -> Verdict:
    response: dict[str, Any] = {"uid": request.uid, "allowed": outcome != "refused"}
    message = "; ".join(faults[:MESSAGES]) + (f"; and {len(faults) - MESSAGES} more" if len(faults) > MESSAGES else "")
    if faults:
        response["status"] = {"code": 422, "reason": "Invalid", "message": message}
    review = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return Verdict(msgspec.json.encode(review), outcome, message)


def _decoded(data: bytes, kind: type[Any], what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{what}: {error}") from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:63]) for name in names)
