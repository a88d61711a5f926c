"""docs/reference/events.md: every Event that the programs write, from the table of reasons itself."""

from __future__ import annotations

from dra.kube.event_reasons import MEANINGS, Meaning, Reason

HEAD = """# Events

Made from the code by `tools/schemas`; do not edit.

`kubectl describe` of the object shows them; `kubectl get events -A --field-selector reason=PrepareFailed` finds them everywhere; those of
Nodes are in the namespace `default`. The same reason on the same object is written at most once a minute, with a count of how often it
happened; beyond 25 at once a program writes five a second. API servers forget Events after an hour, as a rule. What is marked as counted
is in the metric `intel_gpu_dra_findings_total` too. Each reason has a page with cause and cure.
"""
TABLE = """
| reason | on | type | counted | what happened |
|---|---|---|---|---|
"""


def page() -> str:
    return HEAD + "".join(
        f"\n## The {name}\n{TABLE}" + "".join(_row(reason, one) for reason, one in MEANINGS.items() if one.controller is controller)
        for name, controller in (("node plugin", False), ("controller", True))
    )


def _row(reason: Reason, meaning: Meaning) -> str:
    on, weight, counted = ", ".join(meaning.on), "Warning" if meaning.warning else "Normal", "yes" if meaning.finding else ""
    return f"| [`{reason}`](../events/{reason}.md) | {on} | {weight} | {counted} | {meaning.text} |\n"
