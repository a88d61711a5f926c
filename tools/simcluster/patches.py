"""The three ways to change a part: merge patch (RFC 7396), JSON patch (RFC 6902) and server-side apply in a plain form.

Lists are atomic except those of `LIST_KEYS`, whose elements are known by some fields. A strategic merge patch is a merge patch that
knows those lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tools.simcluster import refusals
from tools.simcluster.kinds import Json

LIST_KEYS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("status", "conditions"): ("type",),
    ("status", "devices"): ("driver", "device", "pool", "shareID"),
    ("status", "devices", "*", "conditions"): ("type",),
    ("status", "reservedFor"): ("uid",),
    ("status", "resourceClaimStatuses"): ("name",),
    ("status", "addresses"): ("type",),
    ("spec", "containers"): ("name",),
    ("spec", "resourceClaims"): ("name",),
}

Path = tuple[str, ...]


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any, path: Path = ()) -> Any:
    """As `merge`, but the elements of keyed lists are merged, and `$patch: delete` removes one."""
    if isinstance(patch, list) and (keys := LIST_KEYS.get(path)):
        return _merge_list(target, patch, keys, path)
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif not key.startswith("$"):
            result[key] = strategic(result.get(key), value, (*path, key))
    return result


def _merge_list(target: Any, patch: list[Any], keys: Path, path: Path) -> list[Any]:
    result = list(target or [])
    for element in patch:
        at = next((index for index, old in enumerate(result) if _same(old, element, keys)), None)
        if element.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(element)
        else:
            result[at] = strategic(result[at], element, (*path, "*"))
    return result


def _same(one: Json, other: Json, keys: Path) -> bool:
    return all(one.get(key) == other.get(key) for key in keys)


# --- JSON patch ------------------------------------------------------------------------------------------------------------------


def json_patch(target: Any, operations: Any) -> Any:
    """
    Raises:
        Refused: 400 for what is no patch, 422 for a test that fails or a path that is not there.
    """
    if not isinstance(operations, list):
        raise refusals.bad_request("a JSON patch is a list of operations")
    for operation in operations:
        try:
            target = _apply(target, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise refusals.Refused(
                422, "Invalid", f"the server rejected our request due to an error in our request: {operation}: {error}"
            ) from error
    return target


def _apply(target: Any, operation: Json) -> Any:
    steps = _steps(operation["path"])
    match operation["op"]:
        case "add":
            return _edit(target, steps, operation["value"], insert=True)
        case "replace":
            _read(target, steps)
            return _edit(target, steps, operation["value"], insert=False)
        case "remove":
            _read(target, steps)
            return _cut(target, steps)
        case "test":
            if _read(target, steps) != operation["value"]:
                raise ValueError("test failed")
            return target
        case "copy":
            return _edit(target, steps, _read(target, _steps(operation["from"])), insert=True)
        case "move":
            source = _steps(operation["from"])
            value = _read(target, source)
            return _edit(_cut(target, source), steps, value, insert=True)
        case other:
            raise ValueError(f"no such operation: {other}")


def _steps(pointer: str) -> list[str]:
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise ValueError(f"not a JSON pointer: {pointer}")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _read(target: Any, steps: list[str]) -> Any:
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target[step]
    return target


def _edit(target: Any, steps: list[str], value: Any, *, insert: bool) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(target, list):
        copy = list(target)
        if rest:
            copy[int(step)] = _edit(copy[int(step)], rest, value, insert=insert)
        elif step == "-":
            copy.append(value)
        elif insert:
            if not 0 <= int(step) <= len(copy):
                raise IndexError(step)
            copy.insert(int(step), value)
        else:
            copy[int(step)] = value
        return copy
    return {**target, step: _edit(target[step], rest, value, insert=insert) if rest else value}


def _cut(target: Any, steps: list[str]) -> Any:
    step, rest = steps[0], steps[1:]
    if isinstance(target, list):
        copy = list(target)
        if rest:
            copy[int(step)] = _cut(copy[int(step)], rest)
        else:
            del copy[int(step)]
        return copy
    return {**target, step: _cut(target[step], rest)} if rest else {key: value for key, value in target.items() if key != step}


# --- server-side apply -----------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: Path = (), spelled: Path = ()) -> Iterator[Path]:
    """Paths of what a configuration says: fields, whole atomic lists, and the elements of keyed lists by their keys."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, f"f:{key}"), (*spelled, key))
    elif isinstance(value, list) and value and (keys := LIST_KEYS.get(spelled)):
        for element in value:
            # The element itself stands for the fields that name it.
            yield (*path, _element(element, keys))
            rest = {key: inner for key, inner in element.items() if key not in keys}
            if rest:
                yield from leaves(rest, (*path, _element(element, keys)), (*spelled, "*"))
    else:
        yield path


def _element(element: Json, keys: Path) -> str:
    return "k:" + ",".join(f"{key}={element.get(key, '')}" for key in keys)


def at(value: Any, path: Path, spelled: Path = ()) -> Any:
    """What is at a path of `leaves`, or None."""
    for index, step in enumerate(path):
        if step.startswith("f:"):
            value = value.get(step[2:]) if isinstance(value, dict) else None
            spelled = (*spelled, step[2:])
        else:
            keys = LIST_KEYS[spelled]
            value = next((element for element in value or () if _element(element, keys) == path[index]), None)
            spelled = (*spelled, "*")
        if value is None:
            return None
    return value


def remove(value: Any, path: Path, spelled: Path = ()) -> Any:
    """Without what is at the path; an object goes with its last field."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        key = step[2:]
        if not isinstance(value, dict) or key not in value:
            return value
        inner = remove(value[key], rest, (*spelled, key)) if rest else None
        if inner in (None, {}, []):
            return {name: other for name, other in value.items() if name != key}
        return {**value, key: inner}
    keys = LIST_KEYS[spelled]
    result = []
    for element in value or ():
        if _element(element, keys) != step:
            result.append(element)
        elif rest:
            result.append(remove(element, rest, (*spelled, "*")))
    return result
