"""What a cluster can be asked for is pinned, and each release is told what it knows."""

from __future__ import annotations

import pytest

from tools.realcluster import bare_nodes, programs, versions
from tools.realcluster.versions import Release

EVERY = [Release(version, containerd) for version in versions.PROVEN + versions.CLASSIC for containerd in versions.CONTAINERDS]


@pytest.mark.parametrize("release", EVERY, ids=str)
def test_every_program_is_pinned(release: Release) -> None:
    assert [module.name for module in programs.needed_for(release) if not module.pinned] == []


def test_results_of_two_containerds_have_two_names() -> None:
    assert str(Release("1.28.15")) == "1.28.15"
    assert len({str(release) for release in EVERY}) == len(EVERY)


def test_before_its_second_version_containerd_is_another_module() -> None:
    assert [programs.containerd(version).requirement for version in ("1.7.35", "2.4.2")] == [
        "github.com/containerd/containerd v1.7.35",
        "github.com/containerd/containerd/v2 v2.4.2",
    ]


@pytest.mark.parametrize(("version", "off_by_default"), [("1.28.15", True), ("1.30.14", False)])
def test_classic_releases_serve_admission_policies(version: str, off_by_default: bool) -> None:
    release = Release(version)
    assert release.gates["DynamicResourceAllocation"] is True
    assert release.kubelet_gates == {"DynamicResourceAllocation": True}
    assert "resource.k8s.io/v1alpha2=true" in release.runtime_config
    assert ("ValidatingAdmissionPolicy" in release.gates) is off_by_default
    assert ("admissionregistration.k8s.io/v1beta1=true" in release.runtime_config) is off_by_default


def test_nodes_without_a_kubelet_are_ready_and_follow_the_real_one() -> None:
    nodes = bare_nodes.documents(Release("1.28.15"), range(2, 4))
    assert [node["metadata"]["name"] for node in nodes] == ["node2", "node3"]
    assert [node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes] == ["v1.28.15"] * 2
    assert all({"type": "Ready", "status": "True"}.items() <= node["status"]["conditions"][0].items() for node in nodes)
