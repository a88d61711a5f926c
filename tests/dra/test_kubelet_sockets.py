from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import kubelet_sockets
from dra.kubelet_sockets import KubeletSockets

DRIVER = "gpu.intel.com"
UID = "123e4567-e89b-12d3-a456-426614174000"


def test_plain_names() -> None:
    assert kubelet_sockets.plain("/var/lib/kubelet/", DRIVER) == KubeletSockets(
        "/var/lib/kubelet/plugins_registry/gpu.intel.com-reg.sock", "/var/lib/kubelet/plugins/gpu.intel.com/dra.sock"
    )


def test_names_of_one_instance_among_several() -> None:
    assert kubelet_sockets.rolling("/var/lib/kubelet", DRIVER, UID) == KubeletSockets(
        f"/var/lib/kubelet/plugins_registry/gpu.intel.com-{UID}-reg.sock", f"/var/lib/kubelet/plugins/gpu.intel.com/dra-{UID}.sock"
    )


@pytest.mark.parametrize(
    ("root_bytes", "registrar"),
    [
        (30, rf"gpu\.intel\.com-{UID}-reg\.sock"),  # 107 bytes in all
        (31, r"gpu\.intel\.com-[\w-]{11}-reg\.sock"),
        (55, r"gpu\.intel\.com-[\w-]{11}-reg\.sock"),
    ],
)
def test_longer_roots_make_hashed_names(root_bytes: int, registrar: str) -> None:
    sockets = kubelet_sockets.rolling("/" + "k" * (root_bytes - 1), DRIVER, UID)
    assert re.fullmatch(registrar, sockets.registrar.rpartition("/")[2])


def test_a_long_driver_name_leaves_room_for_a_hash_of_everything() -> None:
    sockets = kubelet_sockets.rolling("/var/lib/kubelet", "graphics-processors." * 2 + "example-org.io", UID)
    assert re.fullmatch(r"dra-[\w-]{22}-reg\.sock", sockets.registrar.rpartition("/")[2])


def test_a_root_that_is_too_long_is_refused_with_the_path() -> None:
    with pytest.raises(ValueError, match=r"plugins_registry.*shorter kubelet root"):
        kubelet_sockets.rolling("/" + "k" * 90, DRIVER, UID)
    with pytest.raises(ValueError, match="shorter kubelet root"):
        kubelet_sockets.plain("/" + "k" * 90, DRIVER)


@given(
    root=st.integers(1, 60).map(lambda n: "/" + "k" * n),
    driver=st.from_regex(r"[a-z]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True),
    uid=st.uuids().map(str),
    other=st.uuids().map(str),
)
def test_names_fit_are_unique_and_recognized(root: str, driver: str, uid: str, other: str) -> None:
    try:
        mine, theirs = kubelet_sockets.rolling(root, driver, uid), kubelet_sockets.rolling(root, driver, other)
    except ValueError:
        return
    for path in (mine.registrar, mine.endpoint):
        assert len(path) <= 107
    own, name = (sockets.registrar.rpartition("/")[2] for sockets in (mine, theirs))
    assert (own == name) == (uid == other)
    assert kubelet_sockets.is_registrar_of(driver, name, own=own)
    assert kubelet_sockets.is_endpoint(theirs.endpoint.rpartition("/")[2])


@pytest.mark.parametrize(
    ("name", "own", "ours"),
    [
        ("gpu.intel.com-reg.sock", f"gpu.intel.com-{UID}-reg.sock", True),
        (f"gpu.intel.com-{UID}-reg.sock", "gpu.intel.com-reg.sock", True),
        ("gpu.intel.com-AbC_d-12345=-reg.sock", "gpu.intel.com-reg.sock", True),
        ("dra-ABCDEFGHIJKLMNOPQRSTUV-reg.sock", "dra-abcdefghijklmnopqrstuv-reg.sock", True),
        ("dra-ABCDEFGHIJKLMNOPQRSTUV==-reg.sock", "dra-abcdefghijklmnopqrstuv-reg.sock", True),
        ("dra-ABCDEFGHIJKLMNOPQRSTUV-reg.sock", "gpu.intel.com-reg.sock", False),
        ("gpu.intel.com.sock", "gpu.intel.com-reg.sock", True),
        ("gpuXintel.com-reg.sock", "gpu.intel.com-reg.sock", False),
        ("gpu.nvidia.com-reg.sock", "gpu.intel.com-reg.sock", False),
        ("gpu.intel.com.example.org-reg.sock", "gpu.intel.com-reg.sock", False),
        ("gpu.intel.com-reg.sock.old", "gpu.intel.com-reg.sock", False),
    ],
)
def test_only_own_registrars_are_leftovers(name: str, own: str, ours: bool) -> None:
    assert kubelet_sockets.is_registrar_of(DRIVER, name, own=own) is ours


def test_the_endpoint_of_the_original_driver_is_a_leftover_too() -> None:
    assert kubelet_sockets.is_endpoint("plugin.sock") and not kubelet_sockets.is_endpoint("plugins.sock")
