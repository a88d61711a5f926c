"""One word of a settings file is changed, and nothing else of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import settings_text
from dra.settings import NodePluginConfiguration, decode_node
from nursery_apps.edges import yaml_text

HEAD = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\n"
ADDED = "decommission: true  # by `gpu-controller cleanup`\n"


def decode(text: str) -> NodePluginConfiguration:
    return decode_node(yaml_text.load(text.encode(), "settings"), "settings")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HEAD, HEAD + ADDED),
        (HEAD.rstrip("\n"), HEAD + ADDED),
        (f"# a comment\n---\n{HEAD}", f"# a comment\n---\n{HEAD}{ADDED}"),
        (f"{HEAD}...\n# the end\n", f"{HEAD}{ADDED}...\n# the end\n"),
        (HEAD + "decommission: false  # not yet\nreconcilePeriod: 1m\n", HEAD + "decommission: true  # not yet\nreconcilePeriod: 1m\n"),
        (HEAD + "'decommission':   false\n", HEAD + "'decommission': true\n"),
        (HEAD + "publish:\n  exclude:\n  - bdf: 0000:18:00.0\n", HEAD + "publish:\n  exclude:\n  - bdf: 0000:18:00.0\n" + ADDED),
        (HEAD.replace("\n", "\r\n"), (HEAD + ADDED).replace("\n", "\r\n")),
    ],
)
def test_the_rest_stays_as_it_was(before: str, after: str) -> None:
    assert settings_text.decommissioned(before) == after
    assert settings_text.means(decode(after), decode(before))


COMMENTS = st.sampled_from(
    ["", "# word\n", "\n", "reconcilePeriod: 2m  # as usual\n", "logging:\n  # loud\n  level: debug\n", "probes: {port: 0}\n"]
)


@given(st.lists(COMMENTS, max_size=6, unique=True), st.sampled_from(["", "decommission: false\n", '"decommission": no-comment\n']))
def test_it_means_that_or_is_seen_not_to(parts: list[str], own: str) -> None:
    before = HEAD + "".join(parts) + own.replace("no-comment", "false # x")
    after = settings_text.decommissioned(before)
    assert settings_text.means(decode(after), decode(before))
    assert all(part in after for part in parts)


def test_what_is_no_block_mapping_is_seen_by_the_parser() -> None:
    flow = "{apiVersion: gpu.intel.com/v1alpha1, kind: NodePluginConfiguration}\n"
    with pytest.raises(Exception, match="settings"):
        decode(settings_text.decommissioned(flow))
