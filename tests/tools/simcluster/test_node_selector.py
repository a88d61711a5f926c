"""NodeSelectors, as the scheduler reads them in classes and allocations."""

from __future__ import annotations

from typing import Any

import pytest

from tools.simcluster import node_selector

NODE = {"metadata": {"name": "n1", "labels": {"gpu": "flex", "count": "4"}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def field(*values: str, operator: str = "In") -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("term", "matches"),
    [
        (expression("gpu", "In", "max", "flex"), True),
        (expression("gpu", "NotIn", "flex"), False),
        (expression("cpu", "NotIn", "flex"), True),
        (expression("gpu", "Exists"), True),
        (expression("gpu", "DoesNotExist"), False),
        (expression("count", "Gt", "3"), True),
        (expression("count", "Lt", "4"), False),
        (expression("gpu", "Gt", "3"), False),
        (field("n1", "n2"), True),
        (field("n1", operator="NotIn"), False),
        ({**field("n1"), **expression("gpu", "In", "max")}, False),
        ({}, False),
    ],
)
def test_a_term(term: dict[str, Any], matches: bool) -> None:
    assert node_selector.matches({"nodeSelectorTerms": [term]}, NODE) is matches
    assert node_selector.matches({"nodeSelectorTerms": [field("other"), term]}, NODE) is matches


def test_names_are_known_where_every_term_says_them() -> None:
    assert node_selector.names({"nodeSelectorTerms": [field("a"), field("b", "c")]}) == ["a", "b", "c"]
    assert node_selector.names({"nodeSelectorTerms": [field("a"), expression("gpu", "Exists")]}) is None
