"""Device metadata (KEP-5304): files that tell a container which devices its claim has; KubeVirt finds the PCI address of a GPU there.

Paths and content are those of Kubernetes' own library (k8s.io/dynamic-resource-allocation, kubeletplugin/metadata.go and api/metadata), but
the mounts are in the claim's CDI file: a container with a request gets its device anyway. A file must be there before the CDI file that
mounts it, and go after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from dra import attributes, slices
from dra.cdi import Mount
from dra.devices import Gpu
from dra.kube.claims import ResourceClaim
from dra.names import DRIVER_NAME, DeviceName
from dra.pool import AttributeValue
from dra.records import Grant, Record

DIRECTORY: Final = "dra-device-metadata"
"""Below the plugin's directory: a flat one, a file a request. Where the files are on the host is nobody else's business."""
IN_CONTAINER: Final = "/var/run/kubernetes.io/dra-device-attributes"
API_VERSIONS: Final = ("metadata.resource.k8s.io/v1beta1", "metadata.resource.k8s.io/v1alpha1")
"""One object for each, newest first: readers take the first they know. 1.36 knows v1alpha1 only; the two say the same."""
POD_CLAIM_ANNOTATION: Final = "resource.kubernetes.io/pod-claim-name"
"""On claims made from a template: the name the pod's spec has for it."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class MetadataFile(msgspec.Struct, frozen=True):
    """The file of one request. Anybody in the container may read it: mode 0644."""

    request: str
    name: str
    """In DIRECTORY: holds the claim's UID, so that no claim of the same name finds it."""
    container_path: str
    data: bytes


def pod_claim_of(claim: ResourceClaim) -> str:
    """What the pod calls a claim that was made from a template; empty for others. Whoever may create claims may write the annotation, so
    what is no name there does not count."""
    name = (claim.metadata.annotations or {}).get(POD_CLAIM_ANNOTATION, "")
    return name if _LABEL.fullmatch(name) else ""


def files(record: Record, gpus: Mapping[DeviceName, Gpu], *, profiles: Mapping[DeviceName, str] = {}) -> tuple[MetadataFile, ...]:
    """What is to be there for a claim, by request. None for what has no names that could be part of a path: claims taken over.

    Args:
        profiles: of the VFs whose profile is known.
    """
    if not _is_named(record):
        return ()
    by_request: dict[str, list[Grant]] = {}
    for grant in record.grants:
        for request in grant.requests:
            by_request.setdefault(request, []).append(grant)
    claim = f"resourceclaimtemplates/{record.pod_claim}" if record.pod_claim else f"resourceclaims/{record.name}"
    return tuple(
        MetadataFile(
            request=request,
            name=f"{record.uid}_{request}.json",
            container_path=f"{IN_CONTAINER}/{claim}/{request}/{DRIVER_NAME}-metadata.json",
            data=_stream(record, request, [_device(grant, gpus.get(grant.device), profiles) for grant in grants]),
        )
        for request, grants in by_request.items()
        if _LABEL.fullmatch(request)
    )


def mounts(files: Iterable[MetadataFile], directory: str) -> dict[str, Mount]:
    """For `dra.cdi.render`: what containers with a request see, by its name. `directory` is DIRECTORY's path on the host."""
    return {file.request: Mount(f"{directory}/{file.name}", file.container_path) for file in files}


def uid_of_file(name: str) -> str:
    """The UID of the claim that a file in DIRECTORY is about."""
    return name.partition("_")[0]


def _stream(record: Record, request: str, devices: list[dict[str, Any]]) -> bytes:
    content: dict[str, Any] = {
        # A file is never changed under a container that has it: a new one takes its name.
        "metadata": {"name": record.name, "namespace": record.namespace, "uid": record.uid, "generation": 1},
        **({"podClaimName": record.pod_claim} if record.pod_claim else {}),
        "requests": [{"name": request, "devices": devices}],
    }
    objects = ({"kind": "DeviceMetadata", "apiVersion": version, **content} for version in API_VERSIONS)
    return b"".join(msgspec.json.encode(one) + b"\n" for one in objects)


def _device(grant: Grant, gpu: Gpu | None, profiles: Mapping[DeviceName, str]) -> dict[str, Any]:
    known: Mapping[str, AttributeValue] = {f"{attributes.STANDARD}/pciBusID": grant.bdf}  # of a GPU that is gone
    if gpu is not None:
        known = attributes.of(gpu, profile=profiles.get(grant.device))
    return {
        "driver": DRIVER_NAME,
        "pool": grant.pool,
        "name": grant.device,
        "attributes": {name: slices.typed(value) for name, value in known.items()},
    }


def _is_named(record: Record) -> bool:
    return _LABEL.fullmatch(record.namespace) is not None and _SUBDOMAIN.fullmatch(record.name) is not None
