"""What a pod says of its claims, in both spellings: up to 1.30 `source` stands between an entry and what it names."""

from __future__ import annotations

import msgspec

from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Cause


class Entry(msgspec.Struct, frozen=True):
    name: str
    """Of the entry: what containers and PodSchedulingContexts call the claim."""
    claim: str
    """Name of a ResourceClaim, empty for one from a template."""
    template: str


def entries(pod: Json) -> list[Entry]:
    found = []
    for entry in pod["spec"].get("resourceClaims") or ():
        source = entry.get("source") or entry
        found.append(Entry(entry["name"], source.get("resourceClaimName") or "", source.get("resourceClaimTemplateName") or ""))
    return found


def claim_names(pod: Json) -> list[tuple[str, str]]:
    """(entry, ResourceClaim), empty for one that is yet to be made; those left out that the pod turned out not to need."""
    generated = {status["name"]: status for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    found = []
    for entry in entries(pod):
        if entry.claim:
            found.append((entry.name, entry.claim))
        elif entry.name not in generated:
            found.append((entry.name, ""))
        elif (name := generated[entry.name].get("resourceClaimName")) is not None:
            found.append((entry.name, name))
    return found


def spelled(name: str, *, claim: str = "", template: str = "", is_classic: bool) -> Json:
    """An entry of `spec.resourceClaims`."""
    said = {"resourceClaimName": claim} if claim else {"resourceClaimTemplateName": template}
    return {"name": name, "source": said} if is_classic else {"name": name, **said}


def known(pod: Json, *, is_classic: bool) -> Json:
    """The pod without the spelling of the other releases, which is no field to this one."""
    listed = pod["spec"].get("resourceClaims")
    if not isinstance(listed, list):
        return pod
    kept = [
        {key: value for key, value in entry.items() if key == "name" or (key == "source") == is_classic}
        if isinstance(entry, dict)
        else entry
        for entry in listed
    ]
    return {**pod, "spec": {**pod["spec"], "resourceClaims": kept}}


def faults(pod: Json) -> list[Cause]:
    """Of a new pod up to 1.30."""
    found = []
    for index, entry in enumerate(pod["spec"].get("resourceClaims") or ()):
        source = entry.get("source") or {}
        if bool(source.get("resourceClaimName")) == bool(source.get("resourceClaimTemplateName")):
            at = f"spec.resourceClaims[{index}].source"
            found.append(Cause(at, "Invalid value: must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`"))
    return found
