"""The fields of a kind, read from its JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dra import settings

LIST = "[]"
"""Ends the name of a field below a list: `publish.include[].bdf`."""


class Field(msgspec.Struct, frozen=True):
    name: str
    """Dotted, as written in the file."""
    type: str
    default: Any
    """UNSET where there is none."""
    text: str
    example: Any

    @property
    def within_list(self) -> bool:
        return LIST in self.name


def of(kind: type[msgspec.Struct]) -> list[Field]:
    """All fields but apiVersion and kind, in the order of the file."""
    schema = settings.json_schema(kind)
    return list(_below(schema, schema["$defs"][kind.__name__], ""))


def _below(schema: dict[str, Any], struct: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, described in struct["properties"].items():
        if name in ("apiVersion", "kind"):
            continue
        path = prefix + name
        if (reference := _reference(described)) is not None:
            yield from _below(schema, schema["$defs"][reference], f"{path}.")
            continue
        default = described.get("default", msgspec.UNSET)
        # A field without an example of its own has its choices, of which the last differs from the default.
        example = described["examples"][0] if "examples" in described else described["enum"][-1]
        yield Field(path, _type(described), default, described["description"], example)
        for one in (described, *described.get("anyOf", ())):
            if (reference := _reference(one.get("items", {}))) is not None:
                yield from _below(schema, schema["$defs"][reference], f"{path}{LIST}.")


def _reference(described: dict[str, Any]) -> str | None:
    return described["$ref"].rpartition("/")[2] if "$ref" in described else None


def _type(described: dict[str, Any]) -> str:
    if "enum" in described:
        return " \\| ".join(f"`{value}`" for value in described["enum"])
    if "anyOf" in described:
        return " or ".join(_type(one) for one in described["anyOf"] if one.get("type") != "null")
    kind = str(described["type"])
    if kind == "array":
        return "list"
    if kind == "string" and "minLength" in described:
        return "duration"
    if "maximum" in described:
        return f"{kind}, {described['minimum']} to {described['maximum']}"
    return kind
