from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.classic import node_selector
from dra.kube.classic import NodeSelector

LABELS = {"zone": "a", "gpus": "8", "word": "eight"}


def matches(*terms: dict[str, Any]) -> bool:
    return node_selector.matches(msgspec.convert({"nodeSelectorTerms": list(terms)}, NodeSelector), "n1", LABELS)


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("zone", "In", ["a", "b"], True),
        ("zone", "In", ["b"], False),
        ("rack", "In", ["a"], False),
        ("zone", "NotIn", ["b"], True),
        ("rack", "NotIn", ["b"], True),
        ("zone", "Exists", None, True),
        ("rack", "DoesNotExist", None, True),
        ("zone", "DoesNotExist", None, False),
        ("gpus", "Gt", ["7"], True),
        ("gpus", "Lt", ["8"], False),
        ("word", "Gt", ["1"], False),
        ("rack", "Gt", ["1"], False),
        ("zone", "Near", ["a"], False),
    ],
)
def test_requirements_of_labels(key: str, operator: str, values: list[str] | None, expected: bool) -> None:
    assert matches({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}) is expected


def test_terms_are_alternatives_and_their_requirements_add_up() -> None:
    here = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
    zone = {"key": "zone", "operator": "In", "values": ["b"]}
    assert matches({"matchFields": [here]})
    assert not matches({"matchFields": [here], "matchExpressions": [zone]})
    assert matches({"matchExpressions": [zone]}, {"matchFields": [here]})
    assert not matches({}) and not matches()
