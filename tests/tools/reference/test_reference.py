"""The reference pages say what the code says, and what they show works."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import msgspec

from dra import controller_settings, opaque_config, settings
from dra.opaque_config import GpuConfig
from dra.settings import NodePluginConfiguration
from nursery_apps.edges import yaml_text
from tools.reference import fields
from tools.reference.__main__ import ROOT, pages


def shown() -> list[bytes]:
    """The YAML examples of the settings page."""
    return [found.encode() for found in re.findall(r"```yaml\n(.*?)```", pages()["docs/reference/settings.md"].decode(), re.DOTALL)]


def test_the_pages_in_the_tree_are_those_the_code_makes() -> None:
    for name, content in pages().items():
        assert (ROOT / name).read_bytes() == content, f"{name} is stale: run tools/schemas"


def test_the_whole_file_that_is_shown_can_be_used_and_sets_every_field() -> None:
    document = yaml_text.load(shown()[0], "settings.md")
    settings.decode_node(document, "settings.md")
    assert isinstance(document, dict)
    for field in fields.of(NodePluginConfiguration):
        place: object = document
        for name in field.name.split(".") if not field.within_list else ():
            assert isinstance(place, dict)
            place = place[name]


def test_the_claim_configuration_that_is_shown_can_be_used() -> None:
    document = yaml_text.load(shown()[2], "settings.md")
    assert opaque_config.decode(msgspec.json.encode(document)).driver == "vfio-pci"


def test_the_controllers_file_that_is_shown_can_be_used() -> None:
    controller_settings.decode_controller(yaml_text.load(shown()[1], "settings.md"), "settings.md")


def test_the_examples_pass_their_schemas() -> None:
    for data, kind in zip(shown(), ("node-plugin-configuration", "controller-configuration", "gpu-config"), strict=True):
        jsonschema.validate(yaml_text.load(data, "settings.md"), msgspec.json.decode(pages()[f"docs/reference/{kind}.schema.json"]))


def test_every_field_has_an_example_that_its_decoder_takes() -> None:
    for field in fields.of(NodePluginConfiguration):
        document = yaml_text.load(shown()[0], "settings.md")
        place: Any = document
        *path, last = field.name.split(".")
        for name in path:
            place = place[name.removesuffix(fields.LIST)]
            if name.endswith(fields.LIST):
                place = place[0] if isinstance(place, list) else {}  # a string may stand for the list
        place[last] = field.example
        settings.decode_node(document, field.name)
    assert [field.name for field in fields.of(GpuConfig)] == ["driver", "profile", "sharing", "monitor"]
