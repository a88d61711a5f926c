"""Structural schemas of custom resources (OpenAPI v3): pruning, defaults, validation, in the words of the real server.

What is understood is in `_KNOWN`; a definition that says more is refused, so that no rule is silently not applied. Rules in CEL
(x-kubernetes-validations) are not evaluated: they are let pass.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import msgspec

from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Cause

_TEXTS: Final = {"title", "description", "example", "externalDocs", "format", "x-kubernetes-validations"}
_KNOWN: Final = {
    "type",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "enum",
    "default",
    "nullable",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def schema_faults(schema: Json, at: str) -> list[Cause]:
    """Why a schema is not structural, or not understood here."""
    found = []
    for key in schema:
        if key not in _KNOWN | _TEXTS:
            found.append(Cause(f"{at}.{key}", f"Forbidden: {key} is not understood here", "FieldValueForbidden"))
    if not schema.get("x-kubernetes-int-or-string") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        if not schema.get("type"):
            return [*found, Cause(f"{at}.type", "Required value: must not be empty for specified object fields", "FieldValueRequired")]
        if schema["type"] not in _TYPES:
            return [*found, Cause(f"{at}.type", f'Unsupported value: "{schema["type"]}"', "FieldValueNotSupported")]
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        found.append(Cause(f"{at}.items", "Required value: must be specified", "FieldValueRequired"))
    if schema.get("properties") and schema.get("additionalProperties"):
        text = "Forbidden: additionalProperties and properties are mutual exclusive"
        found.append(Cause(f"{at}.additionalProperties", text, "FieldValueForbidden"))
    for name, inner in (schema.get("properties") or {}).items():
        found += schema_faults(inner, f"{at}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += schema_faults(schema[key], f"{at}.{key}")
    return found


def complete(schema: Json, value: Any) -> Any:
    """The value without what the schema does not know, and with its defaults. Never changes `value`."""
    if isinstance(value, list):
        items = schema.get("items")
        return [complete(items, inner) for inner in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
    result = {}
    for key, inner in value.items():
        if key in properties:
            result[key] = complete(properties[key], inner)
        elif isinstance(others, dict):
            result[key] = complete(others, inner)
        elif others is True or schema.get("x-kubernetes-preserve-unknown-fields"):
            result[key] = inner
    for key, described in properties.items():
        if key not in result and "default" in described:
            result[key] = complete(described, copy.deepcopy(described["default"]))
    return result


def faults(schema: Json, value: Any, at: str) -> list[Cause]:
    """What is wrong with a value; `at` is its path, `spec.count`."""
    if value is None and schema.get("nullable"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) and not isinstance(value, bool) else [_is(value, at, "must be of type integer or string")]
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        said = _kind_of(value)
        return [Cause(at, f'Invalid value: "{said}": {at} in body must be of type {kind}: "{said}"', "FieldValueTypeInvalid")]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        listed = ", ".join(_shown(each) for each in schema["enum"])
        found.append(Cause(at, f"Unsupported value: {_shown(value)}: supported values: {listed}", "FieldValueNotSupported"))
    match value:
        case bool():
            pass
        case int() | float():
            found += _number_faults(schema, value, at)
        case str():
            found += _bounds(schema, value, at, len(value), "Length", "should be at {} {} chars long")
            if (pattern := schema.get("pattern")) and re.search(pattern, value) is None:
                found.append(_is(value, at, f"should match '{pattern}'"))
        case list():
            found += _bounds(schema, value, at, len(value), "Items", "should have at {} {} items")
            if schema.get("uniqueItems") and any(each in value[:index] for index, each in enumerate(value)):
                found.append(_is(value, at, "shouldn't contain duplicates"))
            for index, inner in enumerate(value):
                found += faults(schema.get("items") or {}, inner, f"{at}[{index}]")
        case dict():
            found += _bounds(schema, value, at, len(value), "Properties", "should have at {} {} properties")
            found += _object_faults(schema, value, at)
    return found


def _object_faults(schema: Json, value: Json, at: str) -> list[Cause]:
    found = []
    properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
    for key in schema.get("required") or ():
        if key not in value:
            found.append(Cause(_below(at, key), "Required value", "FieldValueRequired"))
    for key, inner in value.items():
        described = properties.get(key, others)
        if isinstance(described, dict):
            found += faults(described, inner, _below(at, key))
    return found


def _number_faults(schema: Json, value: float, at: str) -> list[Cause]:
    found = []
    if (least := schema.get("minimum")) is not None and (value < least or (value == least and schema.get("exclusiveMinimum"))):
        found.append(_is(value, at, f"should be greater than {'' if schema.get('exclusiveMinimum') else 'or equal to '}{least}"))
    if (most := schema.get("maximum")) is not None and (value > most or (value == most and schema.get("exclusiveMaximum"))):
        found.append(_is(value, at, f"should be less than {'' if schema.get('exclusiveMaximum') else 'or equal to '}{most}"))
    if (step := schema.get("multipleOf")) and value % step:
        found.append(_is(value, at, f"should be a multiple of {step}"))
    return found


def _bounds(schema: Json, value: Any, at: str, size: int, what: str, text: str) -> list[Cause]:
    """Of lengths, items and properties."""
    found = []
    if size < schema.get(f"min{what}", 0):
        found.append(_is(value, at, text.format("least", schema[f"min{what}"])))
    if size > schema.get(f"max{what}", size):
        found.append(_is(value, at, text.format("most", schema[f"max{what}"])))
    return found


def _is(value: Any, at: str, why: str) -> Cause:
    return Cause(at, f"Invalid value: {_shown(value)}: {at} in body {why}")


def _below(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _kind_of(value: Any) -> str:
    for name, types in _TYPES.items():
        if isinstance(value, types) and (name == "boolean" or not isinstance(value, bool)):
            return name
    return "null"
