"""Settings text that is cut, flipped or malicious ends in one readable line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import settings
from dra.settings import SettingsInvalid
from nursery_apps.edges import yaml_text

GOOD = b"""apiVersion: gpu.intel.com/v1alpha1
kind: NodePluginConfiguration
gracePeriod: 30s
deviceEvents: {source: udev, rescanPeriod: 2m}
publish:
  exclude:
  - bdf: "0000:18:00.0"
"""


def test_a_good_file() -> None:
    made = settings.decode_node(yaml_text.load(GOOD, "s.yaml"), "s.yaml")
    assert (made.grace_period, made.publish.exclude[0].bdf) == ("30s", "0000:18:00.0")


def test_addresses_and_ids_need_no_quotes() -> None:
    text = (
        b"publish: {include: [{bdf: 0000:18:00.0}, {pciId: 0x56c0}]}\nkind: NodePluginConfiguration\napiVersion: gpu.intel.com/v1alpha1\n"
    )
    made = settings.decode_node(yaml_text.load(text, "s.yaml"), "s.yaml")
    assert [(one.bdf, one.pci_id) for one in made.publish.include] == [("0000:18:00.0", None), (None, "0x56c0")]


@pytest.mark.parametrize(
    ("word", "value"),
    [("1", 1), ("-12", -12), ("010", "010"), ("1.5", 1.5), ("true", True), ("~", None), ("", None), ("null", None), ("1m30s", "1m30s"),
     ("yes", "yes"), ("on", "on"), ("2026-01-01", "2026-01-01"), ("1:30", "1:30"), ("0x10", "0x10"), ('"1"', "1"), ("<<", "<<")],
)  # fmt: skip
def test_plain_words(word: str, value: object) -> None:
    assert yaml_text.load(f"a: {word}\n".encode(), "s.yaml") == {"a": value}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: 1\na: 2\n", "key 'a' is there twice at line 2, column 1"),
        (b"a: [1, 2\n", "at line 2, column 1"),
        (b"a: &x [1]\nb: *x\n", "aliases are not allowed"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"a: \x00", "not YAML"),
        (b"1: 2\n", "key 1 is not a text"),
        (b"a: !!python/object/apply:os.system [true]\n", "tags are not allowed at line 1, column 4"),
        (b"x" * 300_000, "at most 262144 are read"),
        (b"a: !!timestamp x\n", "tags are not allowed"),
        (b"a: ! x\n", "tags are not allowed"),
        (b"a: 1\n---\nb: 1\n", "expected a single document"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        yaml_text.load(data, "s.yaml")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def read(data: bytes) -> None:
    try:
        settings.decode_node(yaml_text.load(data, "s.yaml"), "s.yaml")
    except SettingsInvalid:
        return


def test_cut_and_flipped_at_every_byte_it_never_crashes() -> None:
    for position in range(len(GOOD)):
        read(GOOD[:position])
        for bit in range(8):
            flipped = bytearray(GOOD)
            flipped[position] ^= 1 << bit
            read(bytes(flipped))


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    read(data)


@given(st.text("ab:-[]{}#&*!|>'\" \n\t?,%@01.~<=", max_size=60))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    read(text.encode())
