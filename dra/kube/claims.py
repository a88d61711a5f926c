"""ResourceClaim, as much of it as prepare reads. The JSON of the fields below is the same in v1alpha3, v1beta1, v1beta2 and v1, except
for the request, whose `exactly` level v1beta1 and v1alpha3 lack: see `Request.is_admin`."""

from __future__ import annotations

from typing import Any

import msgspec

from dra.kube.meta import ObjectMeta


class Opaque(msgspec.Struct, rename="camel", frozen=True):
    driver: str
    parameters: msgspec.Raw = msgspec.Raw(b"null")


class Config(msgspec.Struct, rename="camel", frozen=True):
    """One entry of `allocation.devices.config`; class entries come before claim entries."""

    source: str = ""
    requests: list[str] | None = None
    opaque: Opaque | None = None


class Result(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    request: str
    """`name`, or `name/subrequest` for a prioritized list."""
    driver: str
    pool: str
    device: str
    admin_access: bool | None = None
    share_id: str | None = msgspec.field(name="shareID", default=None)
    consumed_capacity: dict[str, Any] | None = None


class AllocatedDevices(msgspec.Struct, rename="camel", frozen=True):
    results: list[Result] | None = None
    config: list[Config] | None = None


class Allocation(msgspec.Struct, rename="camel", frozen=True):
    devices: AllocatedDevices = AllocatedDevices()


class Consumer(msgspec.Struct, rename="camel", frozen=True):
    """An entry of `reservedFor`; `resource` is `pods`, or something newer that also counts as in use."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(msgspec.Struct, rename="camel", frozen=True):
    allocation: Allocation | None = None
    reserved_for: list[Consumer] | None = None


class ExactRequest(msgspec.Struct, rename="camel", frozen=True):
    admin_access: bool | None = None


class Request(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    name: str
    exactly: ExactRequest | None = None
    admin_access: bool | None = None

    @property
    def is_admin(self) -> bool:
        """Asked for in the request itself: where Kubernetes 1.31 keeps it, whose results have no such field."""
        return bool(self.admin_access or (self.exactly is not None and self.exactly.admin_access))


class DeviceRequests(msgspec.Struct, rename="camel", frozen=True):
    requests: list[Request] | None = None


class ClaimSpec(msgspec.Struct, rename="camel", frozen=True):
    devices: DeviceRequests = DeviceRequests()


class ResourceClaim(msgspec.Struct, rename="camel", frozen=True):
    metadata: ObjectMeta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus | None = None

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """Whom it is reserved for."""
        return tuple((self.status.reserved_for if self.status is not None else None) or ())
