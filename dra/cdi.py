"""Container Device Interface: one file a claim, named by its UID, with one CDI device for each GPU it holds.

The spec version is the lowest that holds what we write (0.5.0: device names may start with a digit, nodes may have a hostPath), because
runtimes refuse a whole file of a version they do not know. Strings of users enter a file only as names in the paths of mounts, which
`dra.claim_metadata` checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from dra.devices import DeviceNode, Gpu
from dra.names import CDI_CLASS, CDI_KIND, CDI_VENDOR, ClaimUid, DeviceName, claim_uid
from dra.records import Grant, Record

SPEC_VERSION: Final = "0.5.0"
_PREFIX: Final = f"{CDI_VENDOR}-{CDI_CLASS}_"
_SUFFIX: Final = ".json"
TAKEN_OVER_FILE: Final = f"{CDI_VENDOR}-{CDI_CLASS}-taken-over{_SUFFIX}"
"""Devices under the names another driver gave them, while pods prepared by it still run."""

MARKER_VARIABLE: Final = "INTEL_GPU_DRA_CLAIM"
"""Set in every container that was given a GPU: a container without it runs on a runtime that ignores CDI (containerd 1.7 by default)."""


class Mount(msgspec.Struct, frozen=True):
    """A file of the host that a container sees and cannot change."""

    host_path: str
    container_path: str


def file_name(uid: ClaimUid) -> str:
    return f"{_PREFIX}{uid}{_SUFFIX}"


def uid_of_file(name: str) -> ClaimUid | None:
    """The claim a file in the CDI directory is about, or None if the file is not one of ours."""
    if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
        return None
    try:
        return claim_uid(name[len(_PREFIX) : -len(_SUFFIX)])
    except ValueError:
        return None


def device_of(uid: ClaimUid, device: DeviceName, *, monitor: bool = False, driver: str = "") -> str:
    """Name of a CDI device. It holds the claim's UID, so a stale name can never mean another claim's GPU; and what else it stands for
    than the GPU's own nodes, since one claim may have a GPU twice, once by admin access."""
    return f"{uid}-{device}{'-monitor' if monitor else ''}{driver and f'-{driver}'}"


def qualified(device: str) -> str:
    """`intel.com/gpu=<device>`, as the kubelet passes it to the runtime."""
    return f"{CDI_KIND}={device}"


def render(record: Record, gpus: Mapping[DeviceName, Gpu], *, mounts: Mapping[str, Mount] = {}) -> bytes | None:
    """The claim's file, or None if no device of it needs container edits (a file without devices is refused by runtimes).

    `mounts` are what containers with a request see besides, by its base name. Each device of the request has it: runtimes mount a path
    once (CDI's container-edits.go removes an earlier mount of it).

    A GPU without nodes (admin access to one in passthrough) is left out: an empty device is refused too. Claims taken over from another
    driver keep their names, which live in TAKEN_OVER_FILE.
    """
    if record.origin is not None:
        return None
    devices: dict[str, dict[str, Any]] = {}
    for grant in record.grants:
        gpu = gpus.get(grant.device)
        nodes = list(_nodes(grant, gpu)) if gpu is not None else []
        if nodes:
            edits: dict[str, Any] = {"deviceNodes": nodes}
            if shown := [_mount(mounts[request]) for request in grant.requests if request in mounts]:
                edits["mounts"] = shown
            for cdi_id in grant.cdi_ids:
                name = cdi_id.partition("=")[2]
                devices[name] = {"name": name, "containerEdits": edits}
    if not devices:
        return None
    spec = {
        "cdiVersion": SPEC_VERSION,
        "kind": CDI_KIND,
        "devices": [devices[name] for name in sorted(devices)],
        "containerEdits": {"env": [f"{MARKER_VARIABLE}={record.uid}"]},
    }
    return msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def render_taken_over(records: Iterable[Record], gpus: Mapping[DeviceName, Gpu]) -> bytes | None:
    """One file for all claims another driver prepared: several claims may share a name there, so it cannot be in files of claims."""
    devices: dict[str, dict[str, Any]] = {}
    for record in records:
        for grant in record.grants:
            gpu = gpus.get(grant.device)
            nodes = list(_nodes(grant, gpu)) if gpu is not None else []
            for cdi_id in grant.cdi_ids:
                kind, _, name = cdi_id.partition("=")
                if kind == CDI_KIND and nodes:
                    devices[name] = {"name": name, "containerEdits": {"deviceNodes": nodes}}
    if not devices:
        return None
    spec = {"cdiVersion": SPEC_VERSION, "kind": CDI_KIND, "devices": [devices[name] for name in sorted(devices)]}
    return msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def ids(grant: Grant, gpu: Gpu | None) -> tuple[str, ...]:
    """The CDI names to answer for a grant: none when its device has no nodes, since the name would not resolve."""
    return grant.cdi_ids if gpu is not None and any(_nodes(grant, gpu)) else ()


def _nodes(grant: Grant, gpu: Gpu) -> Iterable[dict[str, Any]]:
    if grant.driver:
        # A function on a vfio driver has no other nodes; until it is there it is not ready for this claim.
        if gpu.driver == grant.driver:
            yield from (_node(each.path, each) for each in gpu.vfio_nodes)
        return
    found: dict[str, DeviceNode] = {}
    for node in (gpu.card_node, gpu.render_node):
        if node is not None:
            found[node.path] = node
            yield _node(node.path, node)
    # Level Zero opens what /dev/dri/by-path names if there is such a directory; a node under that name serves it without the host's
    # links, which would also show GPUs that were not granted.
    for link, target in gpu.by_path:
        if target in found:
            yield _node(link, found[target], host_path=target)
    if grant.monitor:
        for node in gpu.mei_nodes:
            yield _node(node.path, node)


def _node(path: str, node: DeviceNode, host_path: str | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": path,
        "type": "c",
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "permissions": "rw",
        "gid": node.gid,
    }
    if host_path is not None:
        entry["hostPath"] = host_path
    return entry


def _mount(mount: Mount) -> dict[str, Any]:
    return {"hostPath": mount.host_path, "containerPath": mount.container_path, "options": ["ro", "bind"]}
