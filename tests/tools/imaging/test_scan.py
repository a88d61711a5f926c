"""What an image may not have."""

from __future__ import annotations

import json
import pathlib

import pytest

from tools.imaging import scan


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small image with which nothing is wrong."""
    for name in ("usr/bin/python3.11", "usr/local/bin/gpu-node-plugin", "opt/intel-gpu-dra/dra/names.py"):
        write(tmp_path / name)
    write(tmp_path / "opt/intel-gpu-dra/dra/__pycache__/names.cpython-311.pyc")
    write(tmp_path / "opt/intel-gpu-dra/inotify_simple-2.0.1.dist-info/METADATA")
    write(tmp_path / scan.SBOM, json.dumps({"components": [{"name": "inotify-simple"}]}))
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def write(path: pathlib.Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def faults(image: pathlib.Path, weight: int = 1) -> list[str]:
    for directory in image.rglob("*"):
        if directory.is_dir() and not directory.is_symlink():
            directory.chmod(0o755)
    return list(scan.faults(image, list(scan.regular(image)), weight))


def test_nothing_is_wrong_with_what_is_needed(image: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(image) == []
    assert scan.main(str(image)) == 0
    assert "MB in 6 files" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["usr/bin/bash", "usr/sbin/dpkg", "usr/local/bin/pip3", "bin/gcc"])
def test_programs_that_nothing_runs(image: pathlib.Path, name: str) -> None:
    write(image / name)
    [fault] = faults(image)
    assert fault.endswith("is a program that nothing here runs")
    assert scan.main(str(image)) == 1


def test_files_that_others_may_write_or_run_as_root(image: pathlib.Path) -> None:
    (image / "usr/bin/python3.11").chmod(0o4755)
    (image / "opt/intel-gpu-dra/dra/names.py").chmod(0o666)
    assert faults(image) == [
        "opt/intel-gpu-dra/dra/names.py can be written by others than root",
        "usr/bin/python3.11 changes who runs it",
    ]


def test_what_is_not_compiled_or_is_for_building(image: pathlib.Path) -> None:
    write(image / "opt/intel-gpu-dra/dra/late.py")
    write(image / "opt/intel-gpu-dra/dra/late.h")
    assert faults(image) == ["opt/intel-gpu-dra/dra/late.h is for building", "opt/intel-gpu-dra/dra/late.py is not compiled"]


def test_a_link_to_nothing(image: pathlib.Path) -> None:
    (image / "usr/lib").mkdir()
    (image / "usr/lib/libudev.so.1").symlink_to("libudev.so.1.7")
    assert faults(image) == ["usr/lib/libudev.so.1 is a link to nothing"]


def test_a_package_that_the_bill_of_materials_does_not_name(image: pathlib.Path) -> None:
    write(image / "opt/intel-gpu-dra/h2-4.4.1.dist-info/METADATA")
    assert faults(image) == [f"{scan.SBOM} does not name h2"]
    write(image / scan.SBOM, "{")
    [fault] = faults(image)
    assert fault.startswith(f"{scan.SBOM} is no bill of materials")


def test_more_than_a_node_should_have_to_pull(image: pathlib.Path) -> None:
    [fault] = faults(image, weight=121_000_000)
    assert fault.startswith("121.0 MB are more than the 120")
