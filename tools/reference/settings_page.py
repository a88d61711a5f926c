"""docs/reference/settings.md: every field that users write, with its default, an example, and when a change of it takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dra import controller_settings, opaque_config, settings
from dra.controller_settings import ControllerConfiguration
from dra.names import API_VERSION
from dra.opaque_config import GpuConfig
from dra.settings import NodePluginConfiguration
from dra.settings_plan import NEEDS_RESTART
from tools.reference import fields
from tools.reference.fields import Field

HEAD = f"""# Settings

Made from the code by `tools/schemas`; do not edit.

## {settings.NODE_KIND}

The node plugin's file, given with `--config`. Everything in it may be left out except `apiVersion` and `kind`. The
[JSON schema](node-plugin-configuration.schema.json) lets editors check it. A file that is wrong is refused whole: at start the program
ends with exit code 2, later the settings in force stay as they were.

The file is read again when it changes and on SIGHUP. `gpu-node-plugin plan --config FILE` shows what a file would change without applying
it. Fields that need a restart keep their old value until then. A change of `publish` that would withdraw a GPU held by a claim is refused
as a whole, with the GPU and the claim named; send SIGHUP when the claim is gone.

Durations are written as Kubernetes does: `500ms`, `10s`, `1m30s`, `2h`. Plain words are read by the core rules of YAML 1.2, so a PCI
address needs no quotes. Keys said twice, aliases and tags are refused.
"""

CONTROLLER = """
## ControllerConfiguration

The controller's file, given with `--config`, under the same rules; `gpu-controller plan --config FILE` checks one. The
[JSON schema](controller-configuration.schema.json) lets editors check it.
"""

CONFIG = f"""
## {opaque_config.KIND}

What a claim or class may say to the driver, in `spec.devices.config[].opaque.parameters` with `driver: gpu.intel.com`. The
[JSON schema](gpu-config.schema.json) is the same. Entries of the class come first, those of the claim override them field by field.
"""


def page() -> str:
    own = fields.of(NodePluginConfiguration)
    text = (
        HEAD
        + "\n"
        + _table(own, reloadable=True)
        + "\nA whole file, with every field set:\n\n"
        + _fenced(_example(settings.NODE_KIND, own))
    )
    of_controller = fields.of(ControllerConfiguration)
    text += CONTROLLER + "\n" + _table(of_controller, reloadable=True, needs_restart=controller_settings.NEEDS_RESTART)
    text += "\nA whole file:\n\n" + _fenced(_example("ControllerConfiguration", of_controller))
    config = fields.of(GpuConfig)
    for_a_vm = [field for field in config if field.name != "monitor"]  # a claim may not have both
    return text + CONFIG + "\n" + _table(config, reloadable=False) + "\n" + _fenced(_example(opaque_config.KIND, for_a_vm))


def _table(rows: list[Field], *, reloadable: bool, needs_restart: Mapping[str, str] = NEEDS_RESTART) -> str:
    heads = ["field", "type", "default", "example", *(["takes effect"] if reloadable else []), "meaning"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for field in rows:
        default = "" if field.default in (msgspec.UNSET, None) else _code(field.default)
        cells = [f"`{field.name}`", field.type, default, _code(field.example)]
        lines.append(f"| {' | '.join([*cells, *([_effect(field, needs_restart)] if reloadable else []), field.text])} |")
    return "\n".join(lines) + "\n"


def _effect(field: Field, needs_restart: Mapping[str, str]) -> str:
    if (why := needs_restart.get(field.name)) is not None:
        return f"restart: {why}"
    if field.name.startswith("sriov."):
        return "at once on cards that are free, on others when they are released"
    return "at once, if no claim holds a GPU that it withdraws" if field.name.startswith("publish.") else "at once"


def _code(value: object) -> str:
    return f"`{msgspec.json.encode(value).decode()}`"


def _example(kind: str, rows: list[Field]) -> str:
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind}
    for field in rows:
        if field.within_list:
            continue
        *path, last = field.name.split(".")
        place = document
        for name in path:
            place = place.setdefault(name, {})
        place[last] = field.example
    return msgspec.yaml.encode(document).decode()


def _fenced(text: str) -> str:
    return f"```yaml\n{text}```\n"
