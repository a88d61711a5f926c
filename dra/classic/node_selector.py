"""Whether a node is one of those that a NodeSelector means (core/v1; k8s.io/component-helpers/scheduling/corev1/nodeaffinity)."""

from __future__ import annotations

from collections.abc import Mapping

from dra.kube.classic import NodeSelector, SelectorRequirement, SelectorTerm


def matches(selector: NodeSelector, name: str, labels: Mapping[str, str]) -> bool:
    """One of the terms must hold with all its requirements; a term without any holds for no node."""
    return any(_holds(term, name, labels) for term in selector.node_selector_terms or ())


def _holds(term: SelectorTerm, name: str, labels: Mapping[str, str]) -> bool:
    by_label, by_field = term.match_expressions or (), term.match_fields or ()
    if not by_label and not by_field:
        return False
    return all(_meets(one, labels) for one in by_label) and all(_meets(one, {"metadata.name": name}) for one in by_field)


def _meets(requirement: SelectorRequirement, has: Mapping[str, str]) -> bool:
    value, values = has.get(requirement.key), requirement.values or ()
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and len(values) == 1:
            try:
                return int(value) > int(values[0]) if requirement.operator == "Gt" else int(value) < int(values[0])
            except ValueError:
                return False
    return False
