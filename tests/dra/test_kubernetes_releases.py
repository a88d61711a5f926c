"""What is too old is refused in one sentence, what is too new is only remarked on."""

from __future__ import annotations

import pytest

from dra import kubernetes_releases
from dra.kubernetes_releases import UnsupportedRelease


@pytest.mark.parametrize("version", ["v1.27.16", "v1.26.0", "v1.9.3-gke.1", "v0.30.0"])
def test_an_old_release_is_refused_in_one_sentence(version: str) -> None:
    with pytest.raises(UnsupportedRelease) as refused:
        kubernetes_releases.demand("the kubelet", version)
    said = str(refused.value)
    assert version in said and "1.28" in said and "\n" not in said


@pytest.mark.parametrize("version", ["v1.28.0", "v1.37.2", "v1.38.0-alpha.1", "v2.0.0", "", "unknown"])
def test_everything_else_is_not(version: str) -> None:
    kubernetes_releases.demand("the kubelet", version)


@pytest.mark.parametrize(("version", "newer"), [("v1.37.9", False), ("v1.38.0", True), ("v2.0.0", True), ("v1.28.15", False), ("", False)])
def test_newer_than_any_that_was_seen(version: str, newer: bool) -> None:
    assert kubernetes_releases.is_newer(version) is newer
