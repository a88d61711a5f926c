"""The rules of a PrometheusRule as a plain Prometheus reads them: the same text, without the object around it."""

from __future__ import annotations

import textwrap
from pathlib import Path

COMPONENTS = Path(__file__).parents[2] / "manifests" / "kustomize" / "components"
FILES = {"prometheus": "rules.yaml", "prometheus-taints": "taint-rules.yaml"}
"""Component -> file below manifests/observability."""
HEAD = "# Made from manifests/kustomize/components/{component}/rules.yaml by `tools/schemas`; do not edit.\n"


def text(component: str) -> str:
    """The `spec` of the component's rules.yaml, comments in it included."""
    _, _, spec = (COMPONENTS / component / "rules.yaml").read_text().partition("\nspec:\n")
    return HEAD.format(component=component) + textwrap.dedent(spec)
