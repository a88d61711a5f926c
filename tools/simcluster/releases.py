"""What each Kubernetes minor serves of `resource.k8s.io`, and its feature gates. A new minor is a row.

1.28 to 1.30 have classic DRA (v1alpha2); 1.31's, which is switched on by a gate of its own, is not played.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

_OBJECTS: Final = ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices")
_RULES: Final = ("devicetaintrules",)
_CLASSIC: Final = ("podschedulingcontexts", "resourceclaims", "resourceclaimtemplates", "resourceclasses")
_NAMED: Final = ("resourceclaimparameters", "resourceclassparameters", "resourceslices")
"""1.30's first try at structured parameters: served, and understood by nothing here."""

Served = tuple[tuple[str, tuple[str, ...]], ...]

# Before 1.34 the group is off by default; a cluster that uses DRA has switched on everything there is.
_SERVED: Final[Mapping[int, tuple[str, Served]]] = {
    28: ("v1.28.15", (("v1alpha2", _CLASSIC),)),
    29: ("v1.29.6", (("v1alpha2", _CLASSIC),)),
    30: ("v1.30.14", (("v1alpha2", (*_CLASSIC, *_NAMED)),)),
    31: ("v1.31.14", (("v1alpha3", _OBJECTS),)),
    32: ("v1.32.13", (("v1beta1", _OBJECTS), ("v1alpha3", _OBJECTS))),
    33: ("v1.33.13", (("v1beta2", _OBJECTS), ("v1beta1", _OBJECTS), ("v1alpha3", (*_OBJECTS, *_RULES)))),
    34: ("v1.34.9", (("v1", _OBJECTS),)),
    35: ("v1.35.6", (("v1", _OBJECTS),)),
    36: ("v1.36.3", (("v1", _OBJECTS),)),
    37: ("v1.37.2", (("v1", (*_OBJECTS, *_RULES)),)),
}
# What `--runtime-config` can add.
_OPTIONAL: Final[Mapping[int, Served]] = {
    34: (("v1beta2", _OBJECTS), ("v1beta1", _OBJECTS), ("v1alpha3", _RULES)),
    35: (("v1beta2", _OBJECTS), ("v1beta1", _OBJECTS), ("v1alpha3", _RULES)),
    36: (("v1beta2", (*_OBJECTS, *_RULES)), ("v1beta1", _OBJECTS), ("v1alpha3", _RULES)),
    37: (("v1beta2", (*_OBJECTS, *_RULES)), ("v1beta1", _OBJECTS), ("v1alpha3", _RULES)),
}

# Gate: (minor it came with, minor it is on from). Before the first its fields do not exist.
_GATES: Final[Mapping[str, tuple[int, int]]] = {
    # 1.31 had the field without a gate of its own.
    "DRAAdminAccess": (31, 34),
    "DRAResourceClaimDeviceStatus": (32, 33),
    "DRAPrioritizedList": (33, 34),
    "DRAPartitionableDevices": (33, 36),
    "DRADeviceTaints": (33, 36),
    "DRADeviceTaintRules": (33, 37),
    "DRAConsumableCapacity": (34, 36),
    "DRADeviceBindingConditions": (34, 36),
    "DRAExtendedResource": (34, 36),
    "DRAListTypeAttributes": (36, 99),
    "DRANodeAllocatableResources": (36, 99),
    "DRAOptionalNodeOperations": (37, 99),
    "DRADeviceCompatibilityGroups": (37, 99),
    "DRAPartitionableDevicesType": (37, 99),
    "DRADerivedAttributes": (37, 99),
    # Of the kubelet; the first was there for device plugins from 1.31 on.
    "ResourceHealthStatus": (34, 36),
    "ResourceHealthStatusMessage": (36, 36),
    # On only where no component may be older (--min-compatibility-version=1.37).
    "DRAFractionalCapacityRange": (37, 99),
}

NEWEST: Final = 37
OLDEST: Final = 28


class Release(msgspec.Struct, frozen=True):
    """One emulated control plane."""

    minor: int
    git_version: str
    served: Served
    """Versions of `resource.k8s.io` in the server's order, each with its resources."""
    gates: frozenset[str]
    """Those that are on."""

    def has(self, gate: str) -> bool:
        return gate in self.gates

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(version for version, _ in self.served)

    @property
    def is_classic(self) -> bool:
        """Whether a controller of the driver allocates (v1alpha2) rather than the scheduler."""
        return self.minor <= 30

    @property
    def admin_label(self) -> str | None:
        """Namespace label without which adminAccess is refused; none before 1.33."""
        if self.minor < 33:
            return None
        return "resource.k8s.io/admin-access" if self.minor == 33 else "resource.kubernetes.io/admin-access"


def release(kubernetes: str, *, gates: Mapping[str, bool] | None = None, runtime_config: tuple[str, ...] = ()) -> Release:
    """The release for `1.34` (or `v1.34.3`), with gates overridden and API versions added.

    Raises:
        ValueError: a minor, gate or version that is not in the tables.
    """
    parts = kubernetes.lstrip("v").split(".")
    if len(parts) < 2 or parts[0] != "1" or not parts[1].isdigit() or int(parts[1]) not in _SERVED:
        raise ValueError(f"no such release: {kubernetes!r} (1.{OLDEST} to 1.{NEWEST})")
    minor = int(parts[1])
    git_version, served = _SERVED[minor]
    optional = dict(_OPTIONAL.get(minor, ()))
    for version in runtime_config:
        if version in optional:
            served = (*served, (version, optional[version]))
        elif version not in dict(served):
            raise ValueError(f"Kubernetes 1.{minor} has no resource.k8s.io/{version}")
    on = {gate for gate, (since, default) in _GATES.items() if since <= minor and default <= minor}
    if minor == 31:
        on.add("DRAAdminAccess")
    for gate, value in (gates or {}).items():
        if gate not in _GATES or _GATES[gate][0] > minor:
            raise ValueError(f"Kubernetes 1.{minor} has no feature gate {gate}")
        on = on | {gate} if value else on - {gate}
    return Release(minor, f"v{kubernetes.lstrip('v')}" if len(parts) > 2 else git_version, served, frozenset(on))
