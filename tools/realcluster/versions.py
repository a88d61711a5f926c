"""The Kubernetes releases that the driver is proven on, and what each must be told."""

from __future__ import annotations

import dataclasses
from typing import Final

DEFAULT: Final = "1.37.2"
PROVEN: Final = ("1.37.2", "1.36.3", "1.35.4", "1.34.3", "1.33.13", "1.32.2", "1.31.0")
"""Newest first. Some patch releases lack a staging module on the module proxy (1.32.13) or fail their checksum (1.33.6)."""
CLASSIC: Final = ("1.30.14", "1.28.15")
"""Allocation by the driver's own controller."""
ETCD: Final = "3.7.3"
HELM: Final = "3.22.0"
CONTAINERD: Final = "2.4.2"
CONTAINERDS: Final = (CONTAINERD, "1.7.35")
"""The older one is what clusters had that ran classic allocation; CDI is off there by default."""


@dataclasses.dataclass(frozen=True)
class Release:
    """One Kubernetes release, like 1.37.2, and the containerd that its node has."""

    version: str
    containerd: str = CONTAINERD

    def __str__(self) -> str:
        return self.version if self.containerd == CONTAINERD else f"{self.version}-containerd-{self.containerd}"

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    @property
    def is_classic(self) -> bool:
        """Whether a driver's controller allocates rather than the scheduler."""
        return self.minor <= 30

    @property
    def build_tags(self) -> tuple[str, ...]:
        # The cloud providers that were still in the tree do not compile with their modules' newer releases.
        return ("providerless",) if self.is_classic else ()

    @property
    def linker_flags(self) -> tuple[str, ...]:
        major, minor, _ = self.version.split(".")
        package = "k8s.io/component-base/version"
        said = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        flags = ["-s", "-w", *(f"-X {package}.{name}={value}" for name, value in said.items())]
        if self.minor < 33:
            flags.append("-checklinkname=0")  # their modules link to names of the Go runtime that Go 1.23 closed
        return tuple(flags)

    @property
    def dra_version(self) -> str:
        """The newest served version of resource.k8s.io, as it is spelled in manifests."""
        return {28: "v1alpha2", 29: "v1alpha2", 30: "v1alpha2", 31: "v1alpha3", 32: "v1beta1", 33: "v1beta2"}.get(self.minor, "v1")

    @property
    def runtime_config(self) -> str:
        """API versions that are off by default."""
        group = "resource.k8s.io"
        if self.minor <= 29:
            return f"{group}/{self.dra_version}=true,admissionregistration.k8s.io/v1beta1=true"
        if self.minor <= 32:
            return f"{group}/{self.dra_version}=true"
        return ",".join(f"{group}/{version}=true" for version in ("v1beta1", "v1beta2", "v1alpha3"))

    @property
    def gates(self) -> dict[str, bool]:
        """Feature gates of API server, controller manager and scheduler: all that the driver can make use of."""
        gates = []
        if self.minor < 34:
            gates.append("DynamicResourceAllocation")
        if self.minor <= 29:
            gates.append("ValidatingAdmissionPolicy")
        if self.minor == 29:
            gates.append("ServiceAccountTokenPodNodeInfo")  # 1.28 has none, from 1.30 on it is on
        if self.minor == 32:
            gates += ["DRAAdminAccess", "DRAResourceClaimDeviceStatus"]
        if self.minor >= 33:
            gates += ["DRAPartitionableDevices", "DRADeviceTaints", "DRAAdminAccess", "DRAPrioritizedList", "DRAResourceClaimDeviceStatus"]
        if self.minor >= 34:
            gates += ["DRAConsumableCapacity", "DRAExtendedResource", "DRADeviceBindingConditions"]
        if self.minor >= 36:
            # Before, with this gate, a kubelet that has rebooted names devices twice, and the API server refuses its pods' status (1.35.4).
            gates.append("ResourceHealthStatus")
        return dict.fromkeys(gates, True)

    @property
    def kubelet_gates(self) -> dict[str, bool]:
        """Those of them that the kubelet knows."""
        known = {"DynamicResourceAllocation", "ResourceHealthStatus", "DRAExtendedResource", "DRAConsumableCapacity", "DRAAdminAccess"}
        return {name: value for name, value in self.gates.items() if name in known}
