"""Judges manifests by the models of the official client, which by itself overlooks fields that it does not know."""

from __future__ import annotations

import json
import re
from typing import Any

from kubernetes import client

_CLIENT = client.ApiClient(client.Configuration())
_GROUPS = {"v1": "V1", "resource.k8s.io/v1": "V1", "resource.k8s.io/v1beta1": "V1beta1", "resource.k8s.io/v1beta2": "V1beta2"}


def faults(body: dict[str, Any]) -> list[str]:
    """Places of fields that do not exist, or what the model says of one that is missing."""
    group = _GROUPS.get(body["apiVersion"])
    model = _named(f"{group}{body['kind']}") or _named(f"Resource{group}{body['kind']}")
    if model is None:
        return [f"there is no {body['apiVersion']} {body['kind']}"]
    if unknown := list(_unknown(model, body, body["kind"])):
        return unknown
    try:
        _CLIENT.deserialize(json.dumps(body), model.__name__, "application/json")
    except ValueError as error:
        return [str(error)]
    return []


def _named(name: str) -> type | None:
    return getattr(client.models, name, None)


def _unknown(model: type, body: Any, place: str) -> Any:
    if not isinstance(body, dict):
        yield f"{place}: wants an object"
        return
    fields = {json_name: name for name, json_name in model.attribute_map.items()}  # type: ignore[attr-defined]
    for key, value in body.items():
        if key not in fields:
            yield f"{place}.{key}: unknown"
            continue
        kind = model.openapi_types[fields[key]]  # type: ignore[attr-defined]
        yield from _of_type(kind, value, f"{place}.{key}")


def _of_type(kind: str, value: Any, place: str) -> Any:
    if match := re.fullmatch(r"List\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{place}: wants a list"
            return
        for index, entry in enumerate(value):
            yield from _of_type(match[1], entry, f"{place}[{index}]")
    elif match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        for key, entry in value.items() if isinstance(value, dict) else ():
            yield from _of_type(match[1], entry, f"{place}[{key}]")
        if not isinstance(value, dict):
            yield f"{place}: wants an object"
    elif (model := _named(kind)) is not None:
        yield from _unknown(model, value, place)
    elif (wanted := {"str": str, "int": int, "bool": bool}.get(kind)) is not None and type(value) is not wanted:
        yield f"{place}: wants {kind}"
