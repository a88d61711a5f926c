"""YAML, the one door to it: text of unknown origin to plain Python values."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from dra.settings import MAX_BYTES, SettingsInvalid


class _StrictLoader(yaml.SafeLoader):
    """Refuses what a settings file has no use for: keys said twice, tags, and aliases, with which a few bytes fill
    all memory.

    Plain words mean what the core schema of YAML 1.2 says: PyYAML's 1.1 would read the PCI address 0000:18:00.0 as a number to base 60,
    the PCI id 0x56c0 as 22208 and `on` as true. It is the loader written in Python; the C one composes by itself and cannot be told.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  shadows the 1.1 rules; filled below

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "tags are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_PLAIN: Final = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]{0,17})", list("-+0123456789")),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]{1,3})?", list("-+.0123456789")),
}
"""Tag -> which plain words have it, and how they begin."""
for _tag, (_words, _first) in _PLAIN.items():
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_words})\\Z"), _first)

_DEEPEST: Final = 32
"""Levels of nesting; our kinds have four."""


def load(data: bytes, where: str) -> object:
    """Parse a settings file.

    Raises:
        SettingsInvalid: one line with file, line and column.
    """
    if len(data) > MAX_BYTES:
        raise SettingsInvalid(f"{where}: {len(data)} bytes, at most {MAX_BYTES} are read")
    if data.count(b"[") + data.count(b"{") > _DEEPEST * 64:
        raise SettingsInvalid(f"{where}: nested too deeply")
    try:
        return yaml.load(data.decode(), _StrictLoader)  # noqa: S506  a subclass of the safe loader
    except UnicodeDecodeError as error:
        raise SettingsInvalid(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise SettingsInvalid(f"{where}: {' '.join(filter(None, (error.context, error.problem))) or 'not YAML'}{at}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SettingsInvalid(f"{where}: not YAML: {text}"[:300]) from None
