from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import semver


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        ("535.104.05", "535.104.5"),
        ("6.12.57+deb13-amd64", "6.12.57+deb13-amd64"),
        ("6.8.0-45-generic", "6.8.0+45-generic"),
        ("6.13-rc2", "6.13.0-rc2"),
        ("6.13.0-rc2+", "6.13.0-rc2"),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0+427.13.1.el9-4.x86-64"),
        ("1.23.10.54.231129.55", "1.23.10+54.231129.55"),
        ("6", "6.0.0"),
        ("v1.2", "1.2.0"),
    ],
)
def test_what_kernels_and_vendors_write(raw: str, version: str) -> None:
    assert semver.normalise(raw) == version


@given(st.one_of(st.text(max_size=90), st.from_regex(r"\d{1,22}(\.\d{1,20}){0,4}[-+._].{0,90}", fullmatch=True)))
def test_whatever_comes_the_server_takes_the_result(raw: str) -> None:
    version = semver.normalise(raw)
    assert version is None or semver.valid(version)


@pytest.mark.parametrize("text", ["535.104.05", "1.2", "1.2.3-", "1.2.3+", "1.2.3-01", "1.2.3+a..b", "1.2.3+" + "a" * 60])
def test_what_the_server_refuses(text: str) -> None:
    assert not semver.valid(text)


def test_release_of_a_server() -> None:
    assert semver.release("v1.34.3-gke.100") == (1, 34)
    assert semver.release("v1.30+") == (1, 30)
    assert semver.release("unknown") is None
