"""What `discover` prints."""

from __future__ import annotations

import json

import pytest

from dra import discovery
from nursery_apps.node import discover
from tests.fakes import machines


@pytest.mark.parametrize("name", machines.NAMES)
def test_json_holds_what_the_machine_is_expected_to_show(name: str) -> None:
    printed = json.loads(discover.render_json(discovery.scan(machines.kernel(name))))
    assert set(printed) == {"gpus", "ignored"}
    by_bdf = {gpu["bdf"]: gpu for gpu in printed["gpus"]}
    for want in machines.expected(name):
        shown = by_bdf[want["bdf"]]
        for field in want.keys() & shown.keys() - {"why"}:
            assert shown[field] == want[field], (want["bdf"], field)


def test_the_table_is_plain_in_a_pipe_and_says_what_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    discover.print_table(discovery.scan(machines.kernel("mixed-nvidia-amd")))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "0000:aa:00.0  Arc Pro B60" in out
    assert "4 GPUs, 2 of them fit to be offered; 11 other devices ignored" in out


def test_an_address_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    discover.print_table(discovery.scan(machines.kernel("server-8x-flex170")))
    assert "0000:cd:00.0" in capsys.readouterr().out
