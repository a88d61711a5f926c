"""fieldSelector and labelSelector."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tools.simcluster import kinds, refusals
from tools.simcluster.kinds import Json, Kind
from tools.simcluster.releases import Release

Predicate = Callable[[Json], bool]


def everything(_body: Json) -> bool:
    return True


def by_field(kind: Kind, text: str, release: Release) -> Predicate:
    """
    Raises:
        Refused: 400, the text is no selector or names a field that cannot be selected by.
    """
    if not text:
        return everything
    allowed = kinds.selectable(kind, release)
    terms: list[tuple[list[str], bool, str]] = []
    for term in text.split(","):
        match = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*", term)
        if match is None:
            raise refusals.bad_request(f"invalid field selector {text!r}: unable to parse requirement: {term!r}")
        name, operator, value = match.groups()
        if name not in allowed:
            raise refusals.bad_request(f"field label not supported: {name}")
        terms.append((name.split("."), operator == "!=", value))

    def matches(body: Json) -> bool:
        return all((_field(body, steps) == value) != negated for steps, negated, value in terms)

    return matches


def _field(body: Json, steps: list[str]) -> str:
    value: Any = body
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


_SET = re.compile(r"\s*([^\s,!=()]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_EQUAL = re.compile(r"\s*([^\s,!=()]+)\s*(==|=|!=)\s*([^\s,]*)\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s,!=()]+)\s*")


def by_label(text: str) -> Predicate:
    """
    Raises:
        Refused: 400, the text is no selector.
    """
    if not text:
        return everything
    tests: list[Callable[[dict[str, str]], bool]] = []
    at = 0
    while at < len(text):
        if match := _SET.match(text, at):
            key, operator, values = match[1], match[2], {value.strip() for value in match[3].split(",")}
            tests.append(_within(key, values, operator == "notin"))
        elif match := _EQUAL.match(text, at):
            tests.append(_within(match[1], {match[3]}, match[2] == "!="))
        elif match := _EXISTS.match(text, at):
            tests.append(_present(match[2], match[1] == ""))
        else:
            raise refusals.bad_request(f"unable to parse label selector {text!r}")
        at = match.end()
        if at < len(text):
            if text[at] != ",":
                raise refusals.bad_request(f"unable to parse label selector {text!r}")
            at += 1

    def matches(body: Json) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _within(key: str, values: set[str], negated: bool) -> Callable[[dict[str, str]], bool]:
    # `!=` and `notin` also hold where there is no such label.
    return lambda labels: (labels.get(key) in values) != negated


def _present(key: str, wanted: bool) -> Callable[[dict[str, str]], bool]:
    return lambda labels: (key in labels) == wanted
