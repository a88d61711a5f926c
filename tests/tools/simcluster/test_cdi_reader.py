"""What a container runtime takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.simcluster import cdi_reader
from tools.simcluster.cdi_reader import Devices, Refused

NODE = {"deviceNodes": [{"path": "/dev/dri/renderD128"}]}


def spec(**more: Any) -> dict[str, Any]:
    return {"cdiVersion": "0.5.0", "kind": "intel.com/gpu", "devices": [{"name": "gpu", "containerEdits": NODE}], **more}


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (spec(devices=[]), "no devices"),
        (spec(surprise=1), "unknown field"),
        (spec(cdiVersion="2.0.0"), "invalid CDI version"),
        (spec(cdiVersion="0.3.0", devices=[{"name": "0gpu", "containerEdits": NODE}]), "at least v0.5.0"),
        (spec(cdiVersion="0.5.0", annotations={"a": "b"}), "at least v0.6.0"),
        (spec(kind="gpu"), "invalid kind"),
        (spec(devices=[{"name": "gpu", "containerEdits": {}}]), "empty device edits"),
        (spec(devices=[{"name": "gpu"}]), "empty device edits"),
        (spec(devices=[{"name": "gpu", "containerEdits": NODE}] * 2), "multiple device"),
        (spec(devices=[{"name": "-gpu", "containerEdits": NODE}]), "invalid device name"),
        (spec(containerEdits={"env": ["NOVALUE"]}), "environment"),
        (spec(containerEdits={"deviceNodes": [{"path": "/dev/x", "permissions": "rwx"}]}), "permissions"),
        (spec(containerEdits={"deviceNodes": [{"path": "/dev/x", "major": "1"}]}), "not a int"),
        (spec(containerEdits={"hooks": [{"hookName": "never", "path": "/x"}]}), "hook"),
    ],
)
def test_one_mistake_refuses_the_file(broken: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        cdi_reader.parse(json.dumps(broken).encode())


def test_edits_of_the_file_come_once_and_of_each_device(tmp_path: Path) -> None:
    devices = [{"name": name, "containerEdits": {"deviceNodes": [{"path": f"/dev/{name}"}]}} for name in ("a", "b", "c")]
    (tmp_path / "x.json").write_text(json.dumps(spec(devices=devices, containerEdits={"env": ["ONCE=1"]})))
    got = Devices([str(tmp_path)]).inject(["intel.com/gpu=a", "intel.com/gpu=b", "intel.com/gpu=a"])
    assert (got.env, [node["path"] for node in got.device_nodes]) == (["ONCE=1"], ["/dev/a", "/dev/b"])


def test_a_device_of_two_files_cannot_be_used(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(json.dumps(spec()))
    (tmp_path / "half-written.tmp").write_text("{")
    found = Devices([str(tmp_path)])
    assert "conflicting device" in found.errors[str(tmp_path / "two.json")]
    with pytest.raises(Refused, match="unresolvable"):
        found.inject(["intel.com/gpu=gpu"])


def test_the_dynamic_directory_wins(tmp_path: Path) -> None:
    for directory in ("static", "dynamic"):
        (tmp_path / directory).mkdir()
        edits = {"deviceNodes": [{"path": f"/dev/{directory}"}]}
        (tmp_path / directory / "x.json").write_text(json.dumps(spec(devices=[{"name": "gpu", "containerEdits": edits}])))
    got = Devices([str(tmp_path / "static"), str(tmp_path / "dynamic")]).inject(["intel.com/gpu=gpu"])
    assert got.device_nodes == [{"path": "/dev/dynamic"}]
