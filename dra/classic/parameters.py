"""What users ask for: GpuClassParameters and GpuClaimParameters, with the original's defaults and rules, and sentences that name the field.

The API server checks new objects against the CRD's schema; objects that were stored before it had one are checked here all the same.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dra.classic.inventory import AllocatableGpu, DeviceType
from dra.classic.names import GROUP, GROUP_VERSION
from dra.errors import ClaimRefused
from dra.kube.classic import GpuClaimParameters, GpuClassParameters, ParametersRef

CLASS_KIND: Final = "GpuClassParameters"
CLAIM_KIND: Final = "GpuClaimParameters"
MOST_DEVICES: Final = 640
"""The original's: ten cards with 64 VFs each."""
MEMORY_MIB: Final = (8, 1 << 20)
"""The original's bounds of a memory request."""
WHOLE_MILLICORES: Final = 1000
TYPES: Final = frozenset(map(str, DeviceType))


class DeviceSelector(msgspec.Struct, frozen=True, gc=False):
    """An entry of a class's `deviceSelector`. The original stored it and never looked at it."""

    type: str
    """`gpu` and `any` are GPUs and their VFs, `vf` VFs only."""
    name: str
    """A glob, whatever the case, for the marketing name, the PCI id, or the uid of the device or its card."""


class ClassParameters(msgspec.Struct, frozen=True, gc=False):
    shared: bool = False
    """Several claims may have amounts of one GPU."""
    monitor: bool = False
    """Claims see all devices of a node and hold none."""
    selectors: tuple[DeviceSelector, ...] = ()
    """A device must match one of them; none: any will do."""

    def admits(self, device: AllocatableGpu, card_name: str = "") -> bool:
        """`card_name` is the marketing name of a VF's card."""
        return not self.selectors or any(_selects(selector, device, card_name) for selector in self.selectors)


class ClaimParameters(msgspec.Struct, frozen=True, gc=False):
    count: int = 1
    memory: int = 0
    """MiB of local memory that each device must have; 0: any."""
    millicores: int = 0
    """Thousandths of a GPU's time that each device must have; 0: any."""
    type: DeviceType = DeviceType.GPU
    shareable: bool = False
    """Several pods may use the claim."""


class Demand(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What one claim asks for, checked. Equal demands are met by equal devices."""

    of_class: ClassParameters
    of_claim: ClaimParameters


def class_name(ref: ParametersRef | None, where: str) -> str | None:
    """The GpuClassParameters that a class refers to, None if it does to none.

    Args:
        where: `ResourceClass intel-gpu`, for the sentence.

    Raises:
        ClaimRefused: it refers to something else.
    """
    return _referred(ref, CLASS_KIND, where)


def claim_name(ref: ParametersRef | None, where: str) -> str | None:
    """The same of a claim."""
    return _referred(ref, CLAIM_KIND, where)


def class_parameters(found: GpuClassParameters) -> ClassParameters:
    """
    Raises:
        ClaimRefused: a field is not as it must be; the sentence names object and field.
    """
    read = _Fields(f"{CLASS_KIND} {found.metadata.name}", found.spec)
    selectors = []
    for at, entry in enumerate(read.entries("deviceSelector")):
        inside = _Fields(f"{read.where}: spec.deviceSelector[{at}]", entry, prefix="")
        selector = DeviceSelector(inside.text("type"), inside.text("name"))
        if selector.type not in TYPES:
            raise inside.refused("type", f"{_shown(selector.type)} is none of {', '.join(DeviceType)}")
        selectors.append(selector)
    made = ClassParameters(read.flag("shared"), read.flag("monitor"), tuple(selectors))
    if made.shared and made.monitor:
        raise read.refused("monitor", "a monitor class holds nothing, so it cannot be shared too; leave one out")
    return made


def claim_parameters(found: GpuClaimParameters) -> ClaimParameters:
    """
    Raises:
        ClaimRefused: as above.
    """
    read = _Fields(f"{CLAIM_KIND} {found.metadata.namespace}/{found.metadata.name}", found.spec)
    wanted = found.spec.get("type", "gpu") or "gpu"
    if not isinstance(wanted, str) or wanted not in TYPES:
        raise read.refused("type", f"{_shown(wanted)} is none of {', '.join(DeviceType)}")
    return ClaimParameters(
        count=read.number("count", 1, 1, MOST_DEVICES),
        memory=read.number("memory", 0, *MEMORY_MIB),
        millicores=read.number("millicores", 0, 1, WHOLE_MILLICORES),
        type=DeviceType(wanted),
        shareable=read.flag("shareable"),
    )


def demand(of_class: ClassParameters, of_claim: ClaimParameters, where: str) -> Demand:
    """Both together.

    Args:
        where: the claim, for the sentence.

    Raises:
        ClaimRefused: they do not go together (the original's rules: validateGpuClaimParameters).
    """
    if of_class.monitor and of_claim.type is not DeviceType.GPU:
        raise _refusal(f"{where}: a monitor class sees whole nodes: spec.type must be gpu, not {of_claim.type}")
    if of_claim.millicores and not of_class.monitor:
        fits = (of_class.shared and of_claim.type is DeviceType.GPU) or (not of_class.shared and of_claim.type is DeviceType.VF)
        if not fits:
            kind = "a shared" if of_class.shared else "an exclusive"
            raise _refusal(
                f"{where}: spec.millicores is for type gpu of a shared class or type vf of an exclusive one, not for type "
                f"{of_claim.type} of {kind} class"
            )
    return Demand(of_class, of_claim)


def _referred(ref: ParametersRef | None, kind: str, where: str) -> str | None:
    if ref is None:
        return None
    # The original demands group and version there; the group alone is what Kubernetes means by the field.
    if ref.api_group not in (GROUP_VERSION, GROUP) or ref.kind != kind:
        raise _refusal(f"{where}: parametersRef is {_shown(ref.api_group)} {_shown(ref.kind)}, this driver takes {GROUP_VERSION} {kind}")
    return ref.name


def _selects(selector: DeviceSelector, device: AllocatableGpu, card_name: str) -> bool:
    if selector.type == DeviceType.VF and device.type is not DeviceType.VF:
        return False
    pattern = selector.name.lower()
    names = (device.name or card_name, device.model, device.uid, device.parentuid)
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for name in names if name)


class _Fields:
    """Reads fields of one object, and refuses with the place."""

    def __init__(self, where: str, fields: Mapping[str, Any], *, prefix: str = "spec.") -> None:
        self.where, self._fields, self._prefix = where, fields, prefix

    def refused(self, field: str, why: str) -> ClaimRefused:
        return _refusal(f"{self.where}: {self._prefix}{field}: {why}")

    def flag(self, field: str) -> bool:
        value = self._fields.get(field, False)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.refused(field, f"{_shown(value)} is neither true nor false")
        return value

    def number(self, field: str, default: int, least: int, most: int) -> int:
        value = self._fields.get(field, default)
        if value is None or value == default:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.refused(field, f"{_shown(value)} is not a whole number from {least} to {most}")
        return value

    def text(self, field: str) -> str:
        value = self._fields.get(field)
        if not isinstance(value, str) or not value:
            raise self.refused(field, f"{_shown(value)} is no text")
        return value

    def entries(self, field: str) -> list[Mapping[str, Any]]:
        value = self._fields.get(field) or []
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.refused(field, f"{_shown(value)} is not a list of {{type, name}}")
        return value


def _refusal(text: str) -> ClaimRefused:
    return ClaimRefused(text, reason="InvalidParameters")


def _shown(value: object) -> str:
    return repr(value)[:60]
