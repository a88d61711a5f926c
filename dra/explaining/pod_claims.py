"""What a pod says of its claims, in both spellings: up to 1.30 `source` stands between an entry and what it names."""

from __future__ import annotations

import msgspec

from dra.explaining.cluster import Json


class Entry(msgspec.Struct, frozen=True):
    name: str
    """What containers call the claim."""
    claim: str
    """Name of the ResourceClaim; empty for one that is yet to be made."""
    template: str
    """Name of the template it is made from; empty for a claim of its own."""


def entries(pod: Json) -> list[Entry]:
    """Those that turned out not to be needed are left out."""
    made = {status["name"]: status.get("resourceClaimName") for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    found = []
    for entry in (pod.get("spec") or {}).get("resourceClaims") or ():
        source = entry.get("source") or entry
        claim, template = source.get("resourceClaimName") or "", source.get("resourceClaimTemplateName") or ""
        if template and entry["name"] in made:
            if made[entry["name"]] is None:
                continue
            claim = made[entry["name"]]
        found.append(Entry(entry["name"], claim, template))
    return found


def uses(pod: Json, claim: Json) -> bool:
    """Whether the pod, in the claim's namespace, names the claim."""
    metadata = claim["metadata"]
    return pod["metadata"].get("namespace") == metadata.get("namespace") and any(e.claim == metadata["name"] for e in entries(pod))
