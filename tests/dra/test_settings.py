"""A settings file is taken whole or refused whole, with the place and what is allowed there."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import durations, settings
from dra.controller_settings import ControllerConfiguration
from dra.devices import Gpu
from dra.names import Bdf
from dra.settings import NodePluginConfiguration, Publish, Selector, SettingsInvalid

HEAD = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "NodePluginConfiguration"}


def decode(**fields: object) -> NodePluginConfiguration:
    return settings.decode_node(HEAD | fields, "s.yaml")


def test_a_file_with_nothing_but_its_kind_means_the_defaults() -> None:
    assert decode() == NodePluginConfiguration()


def test_fields_are_read() -> None:
    made = decode(gracePeriod="1m30s", deviceEvents={"source": "udev"}, publish={"exclude": [{"integrated": True}]}, probes={"port": 0})
    assert durations.seconds(made.grace_period) == 90
    assert (made.device_events.source, made.probes.port) == ("udev", 0)
    assert made.publish.exclude == (Selector(integrated=True),)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "a settings file is a mapping"),
        ({}, "apiVersion and kind are None None, want gpu.intel.com/v1alpha1 NodePluginConfiguration"),
        (HEAD | {"kind": "Node"}, "'Node', want gpu.intel.com/v1alpha1 NodePluginConfiguration"),
        (HEAD | {"gracePeriode": "1s"}, "unknown field `gracePeriode`; did you mean `gracePeriod`?"),
        (HEAD | {"logging": {"levle": "info"}}, "unknown field `levle` - at `$.logging`; did you mean `level`?"),
        (HEAD | {"publish": {"include": [{"pciID": "0x56c0"}]}}, "did you mean `pciId`?"),
        (HEAD | {"probes": {"port": 70000}}, "Expected `int` <= 65535 - at `$.probes.port`"),
        (HEAD | {"deviceEvents": {"source": "netlink"}}, "'netlink' - at `$.deviceEvents.source`; allowed are kernel, udev"),
        (HEAD | {"logging": {"level": "loud\nER"}}, "at `$.logging.level`; allowed are debug, info, warning, error"),
        (HEAD | {"a\nb": 1}, "unknown field `a b`; known are apiVersion, "),
        (HEAD | {"x" * 5000: 1}, "xxx...; known are apiVersion, "),
        (HEAD | {"probes": {"address": "localhost"}}, "'localhost' is not an IP address - at `$.probes.address`"),
        (HEAD | {"publish": {"include": "all"}}, "Expected `array`, got `str` - at `$.publish.include`"),
        (HEAD | {"gracePeriod": "soon"}, "'soon' is not a duration such as 500ms, 10s or 1m30s - at `$.gracePeriod`"),
        (HEAD | {"gracePeriod": "1h"}, "1h is out of range, 0s to 600s are allowed - at `$.gracePeriod`"),
        (HEAD | {"publish": {"exclude": [{}]}}, "would match every GPU - at `$.publish.exclude[0]`"),
        (HEAD | {"publish": {"exclude": [{"bdf": "0000:AA:00.0"}]}}, "is not a PCI address"),
        (HEAD | {"publish": {"exclude": [{"pciId": "56c0"}]}}, "is not a PCI device id"),
    ],
)
def test_what_is_wrong_is_named(document: object, words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings.decode_node(document, "s.yaml")
    assert str(refused.value).startswith("s.yaml: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["gracePeriod", "publish", "probes", "logging", "deviceEvents", "x"]), json_values))
def test_no_document_does_worse_than_be_refused(document: dict[str, object]) -> None:
    try:
        settings.decode_node(HEAD | document, "s.yaml")
    except SettingsInvalid:
        return


ARC = Gpu(bdf=Bdf("0000:03:00.0"), device="0x56a0", model="Arc A770")
IGPU = Gpu(bdf=Bdf("0000:00:02.0"), device="0xa780", model="UHD Graphics 770", integrated=True)


@pytest.mark.parametrize(
    ("publish", "offered"),
    [
        (Publish(), [ARC, IGPU]),
        (Publish(include=(Selector(integrated=False),)), [ARC]),
        (Publish(exclude=(Selector(bdf="0000:03:00.0"),)), [IGPU]),
        (Publish(include=(Selector(pci_id="0x56a0"), Selector(model="UHD Graphics 770"))), [ARC, IGPU]),
        (Publish(include=(Selector(pci_id="0x56a0", integrated=True),)), []),
        (Publish(include=(Selector(pci_id="0x56a0"),), exclude=(Selector(model="Arc A770"),)), []),
    ],
)
def test_selection(publish: Publish, offered: list[Gpu]) -> None:
    assert [gpu for gpu in (ARC, IGPU) if settings.selects(publish, gpu)] == offered


@pytest.mark.parametrize("kind", [NodePluginConfiguration, ControllerConfiguration])
def test_the_schema_accepts_the_defaults_and_refuses_what_we_refuse(kind: type[msgspec.Struct]) -> None:
    schema = settings.json_schema(kind)
    defaults = msgspec.json.decode(msgspec.json.encode(kind()))
    jsonschema.validate(defaults, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(defaults | {"unknown": 1}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)


@pytest.mark.parametrize(
    "fields",
    [
        {"gracePeriod": "soon"},
        {"gracePeriod": "1m30s"},
        {"probes": {"port": -1}},
        {"publish": {"include": [{"bdf": "0000:18:00.0", "pciId": "0x56c0", "model": "Flex 170", "integrated": False}]}},
        {"publish": {"include": [{"bdf": "0000:AA:00.0"}]}},
        {"publish": {"exclude": [{"pciId": "56c0"}]}},
        {"logging": {"level": "loud"}},
    ],
)
def test_the_schema_and_the_decoder_agree(fields: dict[str, object]) -> None:
    accepted = jsonschema.Draft202012Validator(settings.json_schema(NodePluginConfiguration)).is_valid(HEAD | fields)
    try:
        decode(**fields)
    except SettingsInvalid:
        assert not accepted
    else:
        assert accepted
