"""YAML, the one door to it: text of unknown origin to plain Python values."""

from __future__ import annotations

from typing import Any, Final

import yaml

from dra.settings import MAX_BYTES, SettingsInvalid


class _StrictLoader(yaml.SafeLoader):
    """Refuses what a settings file has no use for: keys said twice, and aliases, with which a few bytes fill all memory.

    It is the loader written in Python; the C one composes by itself and cannot be told.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
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
        raise SettingsInvalid(f"{where}: {error.problem or error.context or 'not YAML'}{at}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SettingsInvalid(f"{where}: not YAML: {text}"[:300]) from None
