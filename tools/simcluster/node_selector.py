"""NodeSelectors over Node objects, with all their labels."""

from __future__ import annotations

from tools.simcluster.kinds import Json


def matches(selector: Json, node: Json) -> bool:
    """Whether one of its terms does; a term without requirements matches nothing."""
    return any(_matches(term, node) for term in selector.get("nodeSelectorTerms") or ())


def names(selector: Json) -> list[str] | None:
    """The only nodes it can match, where it says so by name; so that nobody has to look at all of them."""
    found: list[str] = []
    for term in selector.get("nodeSelectorTerms") or ():
        named = [field for field in term.get("matchFields") or () if (field["key"], field["operator"]) == ("metadata.name", "In")]
        if not named:
            return None
        found += named[0].get("values") or ()
    return found


def _matches(term: Json, node: Json) -> bool:
    metadata = node["metadata"]
    fields, expressions = term.get("matchFields") or (), term.get("matchExpressions") or ()
    if not fields and not expressions:
        return False
    labels = metadata.get("labels") or {}
    return all(_holds(each, {"metadata.name": metadata["name"]}) for each in fields) and all(_holds(each, labels) for each in expressions)


def _holds(requirement: Json, labels: Json) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            if value is None or not value.isdigit() or len(values) != 1 or not values[0].isdigit():
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return False
