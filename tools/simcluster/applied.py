"""Server-side apply in a plain form: who applied which field, conflicts, and fields that their owner no longer mentions.

Only apply is recorded in managedFields; other writes own nothing. So a conflict arises between two appliers, never with a plain update.
"""

from __future__ import annotations

from typing import Any, Final

from tools.simcluster import patches, refusals
from tools.simcluster.kinds import Json, Kind

_IDENTITY: Final = {"f:apiVersion", "f:kind"}
_IDENTITY_METADATA: Final = {"f:name", "f:namespace", "f:uid", "f:resourceVersion", "f:managedFields", "f:creationTimestamp"}


def apply(kind: Kind, name: str, now: Json, config: Json, *, manager: str, force: bool, subresource: str, version: str, at: str) -> Json:
    """`now` (in the client's version) with `config` applied by `manager`.

    Raises:
        Refused: 400 without a manager, 409 where another manager applied another value.
    """
    if not manager:
        raise refusals.bad_request("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch")
    if (config.get("metadata") or {}).get("managedFields"):
        raise refusals.bad_request("metadata.managedFields must be nil")
    entries: list[Json] = list((now.get("metadata") or {}).get("managedFields") or ())
    mine = next((entry for entry in entries if _is(entry, manager, subresource)), None)
    others = [entry for entry in entries if entry is not mine]
    said = {path for path in patches.leaves(config) if not _identifies(path)}
    fights: list[tuple[str, patches.Path]] = []
    for entry in others:
        for path in _paths(entry.get("fieldsV1") or {}):
            if path in said and not path[-1].startswith("k:") and patches.at(now, path) != patches.at(config, path):
                fights.append((entry["manager"], path))
    if fights and not force:
        causes = [{"reason": "FieldManagerConflict", "message": f'conflict with "{who}"', "field": _spelled(path)} for who, path in fights]
        text = f"Apply failed with {len(fights)} conflict{'s' if len(fights) > 1 else ''}: " + ", ".join(
            f'conflict with "{who}": {_spelled(path)}' for who, path in fights
        )
        raise refusals.Refused(409, "Conflict", text, details={"name": name, "group": kind.group, "kind": kind.plural, "causes": causes})
    lost = {path for _, path in fights}
    others = [{**entry, "fieldsV1": _tree(set(_paths(entry["fieldsV1"])) - lost)} for entry in others]
    others = [entry for entry in others if entry["fieldsV1"]]
    kept_by_others = {path for entry in others for path in _paths(entry["fieldsV1"])}
    result = patches.strategic(now, {key: value for key, value in config.items() if key not in ("apiVersion", "kind")})
    before = set(_paths(mine["fieldsV1"])) if mine else set()
    # Elements of lists last, so that the fields inside them are still found.
    for path in sorted(before - said - kept_by_others, key=lambda path: path[-1].startswith("k:")):
        result = patches.remove(result, path)
    entry = {
        "manager": manager,
        "operation": "Apply",
        "apiVersion": version,
        "time": at if mine is None or before != said else mine["time"],
        "fieldsType": "FieldsV1",
        "fieldsV1": _tree(said),
        **({"subresource": subresource} if subresource else {}),
    }
    managed = [*others, entry] if said else others
    return {**result, "metadata": {**result["metadata"], "managedFields": managed}}


def _is(entry: Json, manager: str, subresource: str) -> bool:
    return bool(entry.get("manager") == manager and entry.get("operation") == "Apply" and entry.get("subresource", "") == subresource)


def _identifies(path: patches.Path) -> bool:
    return path == () or path[0] in _IDENTITY or (path[0] == "f:metadata" and (len(path) < 2 or path[1] in _IDENTITY_METADATA))


def _tree(paths: set[patches.Path]) -> Json:
    tree: Json = {}
    for path in sorted(paths):
        at = tree
        for step in path:
            at = at.setdefault(step, {})
        if path[-1].startswith("k:"):
            at["."] = {}
    return tree


def _paths(tree: Json, path: patches.Path = ()) -> list[patches.Path]:
    found: list[patches.Path] = []
    inner: Any
    for step, inner in tree.items():
        if step == ".":
            found.append(path)
        elif not inner:
            found.append((*path, step))
        else:
            found += _paths(inner, (*path, step))
    return found


def _spelled(path: patches.Path) -> str:
    return "".join(f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]" for step in path)
