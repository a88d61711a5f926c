"""A settings file is read as it stands, and its changes are heard."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from dra import controller_settings
from dra.controller_settings import ControllerConfiguration
from dra.settings import SettingsInvalid
from nursery_apps.edges.settings_file import SettingsFile

HEAD = "apiVersion: gpu.intel.com/v1alpha1\nkind: ControllerConfiguration\n"


def test_it_says_what_the_file_says_now(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    source = SettingsFile(str(path), controller_settings.decode_controller)
    path.write_text(HEAD + "workers: 3\n")
    assert source.read() == ControllerConfiguration(workers=3)
    path.write_text(HEAD + "workers: 4\n")
    assert source.read().workers == 4


@pytest.mark.parametrize("text", [None, "a: [", HEAD + "workers: many\n", ""])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "f.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsInvalid, match=r"f\.yaml"):
        SettingsFile(str(path), controller_settings.decode_controller).read()


async def test_a_change_is_heard(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(HEAD)
    changed = trio.Event()
    await nursery.start(SettingsFile(str(path), controller_settings.decode_controller).watch, changed.set)
    path.write_text(HEAD + "workers: 3\n")
    with trio.fail_after(5):
        await changed.wait()
