"""What a container runtime makes of CDI files: which it refuses, and what the rest adds to a container.

After the specification at versions 0.3.0 to 1.1.0 and the habits of its Go library: one mistake refuses the whole file, and a device that
two files of one directory define cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

VERSIONS: Final = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

_SPEC: Final = {"cdiVersion": str, "kind": str, "annotations": dict, "devices": list, "containerEdits": dict}
_DEVICE: Final = {"name": str, "annotations": dict, "containerEdits": dict}
_EDITS: Final = {
    "env": list,
    "deviceNodes": list,
    "netDevices": list,
    "hooks": list,
    "mounts": list,
    "intelRdt": dict,
    "additionalGids": list,
}
_NODE: Final = {
    "path": str,
    "hostPath": str,
    "type": str,
    "major": int,
    "minor": int,
    "fileMode": int,
    "permissions": str,
    "uid": int,
    "gid": int,
}
_MOUNT: Final = {"hostPath": str, "containerPath": str, "options": list, "type": str}
_HOOK: Final = {"hookName": str, "path": str, "args": list, "env": list, "timeout": int}
_HOOKS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_VENDOR: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")

Json = dict[str, Any]


class Refused(Exception):
    """A file, or a device name, that a runtime does not take."""


class Injection(msgspec.Struct):
    """What a container gets."""

    env: list[str] = []
    device_nodes: list[Json] = []
    mounts: list[Json] = []
    hooks: list[Json] = []
    additional_gids: list[int] = []

    def add(self, edits: Json) -> None:
        self.env += edits.get("env") or ()
        self.device_nodes += edits.get("deviceNodes") or ()
        self.mounts += edits.get("mounts") or ()
        self.hooks += edits.get("hooks") or ()
        self.additional_gids += edits.get("additionalGids") or ()


class Devices:
    """One look at the directories; a runtime looks again whenever something changes there."""

    def __init__(self, directories: Sequence[str]) -> None:
        """
        Args:
            directories: the later ones win, as the dynamic one does over the static.
        """
        self.errors: dict[str, str] = {}
        """What is refused: path -> why."""
        self._devices: dict[str, tuple[str, Json, Json]] = {}
        for directory in directories:
            mine: dict[str, tuple[str, Json, Json]] = {}
            twice: set[str] = set()
            for path in sorted(Path(directory).glob("*")):
                if path.suffix not in (".json", ".yaml"):
                    continue
                try:
                    spec = parse(path.read_bytes(), path.suffix)
                except Refused as refused:
                    self.errors[str(path)] = str(refused)
                    continue
                for device in spec["devices"]:
                    name = f"{spec['kind']}={device['name']}"
                    if name in mine:
                        twice.add(name)
                        self.errors[str(path)] = f"conflicting device {name} (also in {mine[name][0]})"
                    mine[name] = (str(path), device["containerEdits"], spec.get("containerEdits") or {})
            self._devices |= mine
            for name in twice:
                del self._devices[name]

    @property
    def names(self) -> list[str]:
        return sorted(self._devices)

    def inject(self, names: Iterable[str]) -> Injection:
        """The edits of these devices, and once those of the files they are in.

        Raises:
            Refused: one of them is not there.
        """
        wanted = list(dict.fromkeys(names))
        if missing := [name for name in wanted if name not in self._devices]:
            raise Refused(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
        injection, files = Injection(), set()
        for name in wanted:
            path, edits, common = self._devices[name]
            if path not in files:
                files.add(path)
                injection.add(common)
            injection.add(edits)
        return injection


def parse(data: bytes, suffix: str = ".json") -> Json:
    """A valid CDI file.

    Raises:
        Refused: says why it is not.
    """
    try:
        spec = msgspec.json.decode(data) if suffix == ".json" else yaml.safe_load(data)
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"failed to parse CDI Spec: {error}") from error
    spec = _fields("spec", spec, _SPEC)
    version = spec.get("cdiVersion", "")
    if version not in VERSIONS:
        raise Refused(f'invalid CDI version "{version}"')
    vendor, slash, kind_class = spec.get("kind", "").partition("/")
    if not slash or not _VENDOR.fullmatch(vendor) or not _VENDOR.fullmatch(kind_class) or len(vendor) > 253 or len(kind_class) > 63:
        raise Refused(f'invalid kind "{spec.get("kind", "")}"')
    if not spec.get("devices"):
        raise Refused("invalid spec, no devices")
    if "containerEdits" in spec:
        _edits("containerEdits", spec["containerEdits"])
    seen = set()
    for index, device in enumerate(spec["devices"]):
        _fields(f"devices[{index}]", device, _DEVICE)
        name = device.get("name", "")
        if not _NAME.fullmatch(name):
            raise Refused(f'invalid device name "{name}"')
        if name in seen:
            raise Refused(f'invalid spec, multiple device "{name}"')
        seen.add(name)
        if not any((device.get("containerEdits") or {}).values()):
            raise Refused(f'invalid device "{name}": empty device edits')
        _edits(f"device {name}", device["containerEdits"])
    least = least_version(spec)
    if VERSIONS.index(version) < VERSIONS.index(least):
        raise Refused(f"the spec version must be at least v{least}, not v{version}")
    return spec


def least_version(spec: Json) -> str:
    """The oldest version that knows everything in the file."""
    edits = [spec.get("containerEdits") or {}, *((device.get("containerEdits") or {}) for device in spec["devices"])]
    if any(each.get("netDevices") for each in edits):
        return "1.1.0"
    if any(each.get("intelRdt") or each.get("additionalGids") for each in edits):
        return "0.7.0"
    if spec.get("annotations") or any(device.get("annotations") for device in spec["devices"]) or "." in spec["kind"].partition("/")[2]:
        return "0.6.0"
    if any(device["name"][0].isdigit() for device in spec["devices"]):
        return "0.5.0"
    if any("hostPath" in node for each in edits for node in each.get("deviceNodes") or ()):
        return "0.5.0"
    if any(mount.get("type") for each in edits for mount in each.get("mounts") or ()):
        return "0.4.0"
    return "0.3.0"


def _edits(where: str, edits: Any) -> None:
    _fields(where, edits, _EDITS)
    for text in edits.get("env") or ():
        if not isinstance(text, str) or text.find("=") < 1:
            raise Refused(f"{where}: invalid environment variable {text!r}")
    for node in edits.get("deviceNodes") or ():
        _fields(f"{where}: device node", node, _NODE)
        if not node.get("path"):
            raise Refused(f"{where}: invalid (empty) device path")
        if node.get("type", "") not in ("", "b", "c", "u", "p"):
            raise Refused(f"{where}: device {node['path']}: invalid type {node['type']!r}")
        if set(node.get("permissions", "")) - set("rwm"):
            raise Refused(f"{where}: device {node['path']}: invalid permissions {node['permissions']!r}")
    for mount in edits.get("mounts") or ():
        _fields(f"{where}: mount", mount, _MOUNT)
        if not mount.get("hostPath") or not mount.get("containerPath"):
            raise Refused(f"{where}: invalid mount, empty host or container path")
    for hook in edits.get("hooks") or ():
        _fields(f"{where}: hook", hook, _HOOK)
        if hook.get("hookName") not in _HOOKS or not hook.get("path"):
            raise Refused(f"{where}: invalid hook {hook.get('hookName')!r}")


def _fields(where: str, value: Any, known: Mapping[str, type]) -> Json:
    if not isinstance(value, dict):
        raise Refused(f"{where}: not an object")
    for name, inner in value.items():
        if name not in known:
            raise Refused(f'{where}: unknown field "{name}"')
        if not isinstance(inner, known[name]) or (known[name] is int and isinstance(inner, bool)):
            raise Refused(f"{where}: {name} is not a {known[name].__name__}")
    return value
