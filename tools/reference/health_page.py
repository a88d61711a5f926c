"""docs/reference/health.md: every condition of a GPU that is watched, from the table itself."""

from __future__ import annotations

from dra.health.conditions import CONDITIONS, Condition
from dra.names import DRIVER_NAME

HEAD = f"""# Conditions of a GPU

Made from the code by `tools/schemas`; do not edit.

Each is a device taint `{DRIVER_NAME}/<condition>` with the value `degraded` or `failed`, also in the quiet period after it. Its effect is
what `health.effects` says of its severity: by default a GPU that failed evicts its pods, and one that is degraded is only told of. A
measurement counts when it has lasted for `health.holdDown`, within which a bad one is taken once more; everything else at once. Both stay
for `health.quiet` after they are over, and for twice as long each time they come back soon. What is mostly done by hand is over at once the
first time. What is wrong with a card is wrong with its VFs. `health.ignore` takes the words of the first column.

| condition | counts | told by | meaning | what to do |
|---|---|---|---|---|
"""


def page() -> str:
    return HEAD + "".join(map(_row, CONDITIONS.values()))


def _row(condition: Condition) -> str:
    counts = "at once" if condition.at_once else "when it lasts"
    return f"| `{condition.key}` | {counts} | {', '.join(condition.sources)} | {condition.meaning} | {condition.cure} |\n"
