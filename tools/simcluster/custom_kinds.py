"""CustomResourceDefinitions: kinds that come and go with an object, with the schema of their storage version.

All versions of a kind have the same objects, unconverted (strategy None), and the storage version's schema: other schemas of the same
kind are not applied.
"""

from __future__ import annotations

from typing import Any, Final

from tools.simcluster import names, structural
from tools.simcluster.kinds import DEFINITION, Json, Kind, Served
from tools.simcluster.refusals import Cause
from tools.simcluster.store import Store

_EVERY_OBJECT: Final[Json] = {"metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


def defaulted(definition: Json, at: str) -> Json:
    """With names that follow from others, and the status of one that is established."""
    spec = definition.get("spec") or {}
    said = spec.get("names") or {}
    kind = said.get("kind") or ""
    complete = {"singular": kind.lower(), "listKind": f"{kind}List", **said}
    condition = {"status": "True", "lastTransitionTime": at}
    old = {each["type"]: each for each in (definition.get("status") or {}).get("conditions") or ()}
    status = {
        "acceptedNames": complete,
        "storedVersions": [version.get("name") for version in spec.get("versions") or () if version.get("storage")],
        "conditions": [
            old.get("NamesAccepted", {"type": "NamesAccepted", "reason": "NoConflicts", "message": "no conflicts found", **condition}),
            old.get(
                "Established",
                {"type": "Established", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted", **condition},
            ),
        ],
    }
    return {**definition, "spec": {"conversion": {"strategy": "None"}, **spec, "names": complete}, "status": status}


def definition_faults(definition: Json, old: Json | None) -> list[Cause]:
    spec = definition.get("spec") or {}
    said, group, scope = spec.get("names") or {}, spec.get("group") or "", spec.get("scope")
    found = []
    if not names.subdomain(group) or "." not in group:
        found.append(Cause("spec.group", f'Invalid value: "{group}": should be a domain with at least one dot'))
    for key in ("plural", "kind"):
        if not said.get(key):
            found.append(Cause(f"spec.names.{key}", "Required value", "FieldValueRequired"))
    if definition["metadata"]["name"] != f"{said.get('plural')}.{group}":
        text = f'Invalid value: "{definition["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        found.append(Cause("metadata.name", text))
    if scope not in ("Namespaced", "Cluster"):
        text = f'Unsupported value: "{scope}": supported values: "Cluster", "Namespaced"'
        found.append(Cause("spec.scope", text, "FieldValueNotSupported"))
    if old is not None and scope != old["spec"]["scope"]:
        found.append(Cause("spec.scope", "Invalid value: field is immutable"))
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        found.append(Cause("spec.versions", "Invalid value: must have exactly one version marked as storage version"))
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not names.label(version.get("name") or ""):
            found.append(Cause(f"{at}.name", f"Invalid value: {names.LABEL_RULE}"))
        if not isinstance(schema, dict):
            found.append(Cause(f"{at}.schema.openAPIV3Schema", "Required value: schemas are required", "FieldValueRequired"))
        else:
            found += structural.schema_faults(schema, f"{at}.schema.openAPIV3Schema")
    return found


def kind(definition: Json) -> Kind:
    spec = definition["spec"]
    said = spec["names"]
    return Kind(
        spec["group"],
        said["kind"],
        said["plural"],
        namespaced=spec["scope"] == "Namespaced",
        version=_storage(definition)["name"],
        has_status="status" in (_storage(definition).get("subresources") or {}),
        short_names=tuple(said.get("shortNames") or ()),
        singular=said["singular"],
        is_custom=True,
        needs_version=True,
    )


def serve(store: Store, served: Served) -> None:
    """Add what the definitions define."""
    for definition in store.each(DEFINITION):
        for version in definition["spec"]["versions"]:
            if version.get("served"):
                served.setdefault(definition["spec"]["group"], {}).setdefault(version["name"], []).append(kind(definition))


def complete(store: Store, kind: Kind, body: Json) -> Json:
    """Pruned and defaulted. Metadata are the server's business."""
    schema = _schema(store, kind)
    return body if schema is None else structural.complete(schema, body)


def faults(store: Store, kind: Kind, body: Json) -> list[Cause]:
    schema = _schema(store, kind)
    return [] if schema is None else structural.faults(schema, body, "")


def _storage(definition: Json) -> Json:
    found: Json = next(version for version in definition["spec"]["versions"] if version.get("storage"))
    return found


def _schema(store: Store, kind: Kind) -> Json | None:
    definition = store.get(DEFINITION, "", kind.qualified)
    if definition is None:
        return None
    schema: dict[str, Any] = _storage(definition)["schema"]["openAPIV3Schema"]
    # apiVersion and kind are not held.
    properties = {key: value for key, value in (schema.get("properties") or {}).items() if key not in ("apiVersion", "kind")}
    return {**schema, "properties": {**properties, **_EVERY_OBJECT}}
