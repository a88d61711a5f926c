"""A settings file's text with one word of it changed: comments, order and spelling of all the rest are its owner's."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from dra.errors import ClaimRefused
from dra.settings import NodePluginConfiguration

_LINE: Final = re.compile(
    r"""(?P<key>(?P<quote>["']?)decommission(?P=quote)[ \t]*:)(?P<value>[^#\r\n]*?)(?P<rest>([ \t]+#[^\r\n]*)?[\r\n]*)"""
)
_END: Final = re.compile(r"(\.\.\.|---)([ \t].*)?")
_ADDED: Final = "decommission: true  # by `gpu-controller cleanup`"


def decommissioned(text: str) -> str:
    """`decommission: true` set in the text of a NodePluginConfiguration, on a line of its own. Whether the result means that, and
    nothing else besides, is for a parser to say: a file that is one flow mapping (`{...}`) is not understood here."""
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        if (found := _LINE.fullmatch(line)) is not None:
            lines[at] = f"{found['key']} true{found['rest']}"
            return "".join(lines)
    begun = next((at for at, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(("#", "%"))), len(lines))
    if begun < len(lines) and lines[begun].startswith("---"):
        begun += 1
    end = next((at for at in range(begun, len(lines)) if _END.fullmatch(lines[at].rstrip("\r\n"))), len(lines))
    newline = "\r\n" if "\r\n" in text else "\n"
    before = "".join(lines[:end])
    if before and not before.endswith(("\n", "\r")):
        before += newline
    return before + _ADDED + newline + "".join(lines[end:])


def means(after: NodePluginConfiguration, before: NodePluginConfiguration) -> bool:
    """Whether two settings are the same but for `decommission: true` in the former."""
    return after == msgspec.structs.replace(before, decommission=True)


class NotEditable(ClaimRefused):
    """The administrator's move: the file is written in a way that a line cannot be added to."""

    reason = "NotEditable"

    def __init__(self) -> None:
        super().__init__("the settings are written in a way that no line can be added to; set `decommission: true` by hand")
