"""The same life with `kubectl apply -k`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.e2e.driver import ROOT
from tests.e2e.pods import OPEN_ALL, STAY, Namespace
from tests.e2e.rollout.release import AnyDriver, Release, ask, hurried, is_classic, may
from tools.realcluster.node import until

KUSTOMIZE = ROOT / "manifests" / "kustomize"


RIGHTS = {
    ("patch", "configmaps/node-plugin-settings", "own"): True,
    ("delete", "leases.coordination.k8s.io", "own"): True,
    ("list", "nodes", ""): True,
    ("patch", "configmaps/kube-root-ca.crt", "own"): False,
    ("delete", "resourceclaims.resource.k8s.io", ""): False,
    ("delete", "pods", ""): False,
    ("get", "secrets", "own"): False,
    ("create", "pods", "own"): False,
}
"""(verb, resource, namespace) -> whether the account that cleans up may."""


def test_apply_use_clean_up_and_delete(release: Release, bare: AnyDriver, ns: Namespace, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is left afterwards the fixture looks for."""
    work = tmp_path_factory.mktemp("overlay")
    bare.install(work)
    bare.wait_ready(90)
    assert bare.metric("vfs") == 0, "those of a driver that was removed are gone"
    ask(ns, "gpu")
    ns.pod("p", template="gpu", command=f"{OPEN_ALL} && {STAY}")
    ns.ready("p")
    ns.delete("p")
    job = tmp_path_factory.mktemp("cleanup")
    clean_up(bare, job)
    assert {what: may(bare, "cleanup", *what) for what in RIGHTS} == RIGHTS
    bare.kubectl("delete", "-k", str(job))
    bare.kubectl("delete", "-k", str(work))


def clean_up(driver: AnyDriver, work: pathlib.Path) -> None:
    """The Job, from an overlay that names the image which is here, to its end."""
    directory = KUSTOMIZE / ("cleanup-classic" if is_classic(driver.api) else "cleanup")
    image = {"name": "registry.local/intel-gpu-dra", "newName": "registry.local/intel-gpu-dra-simulated"}
    overlay = {"resources": [os.path.relpath(directory, work.resolve())], "images": [image]}
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (work / "kustomization.yaml").write_text(json.dumps(head | overlay))
    driver.kubectl("apply", "-k", str(work))

    def ended() -> str | None:
        status = (driver.api.get("Job", "cleanup", driver.namespace) or {}).get("status", {})
        return "well" if status.get("succeeded") else "ill" if status.get("failed") else None

    with hurried(driver):
        how = until("the end of the Job cleanup", ended, seconds=180, look=f"kubectl -n {driver.namespace} logs job/cleanup")
    assert how == "well", driver.kubectl("-n", driver.namespace, "logs", "job/cleanup")


OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_object(release: Release, bare: AnyDriver, overlay: str, tmp_path: pathlib.Path) -> None:
    """Strictly: a field that it does not know is an error."""
    major, minor = bare.api.version
    if overlay.startswith("kubernetes-") and overlay != f"kubernetes-{major}.{minor}":
        pytest.skip(f"of another release than {major}.{minor}")
    if not overlay.startswith("kubernetes-") and minor < 34:
        pytest.skip("built on ../../base, which is for Kubernetes 1.34 and newer")
    if overlay == "node-feature-discovery":
        pytest.skip("Node Feature Discovery is not installed here")
    (tmp_path / "all.yaml").write_text(bare.kubectl("kustomize", str(KUSTOMIZE / "overlays" / overlay)))
    with namespace(bare):
        bare.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(tmp_path / "all.yaml"))


@contextlib.contextmanager
def namespace(driver: AnyDriver) -> Iterator[None]:
    """The driver's: nothing can be asked of objects in one that is not there."""
    driver.kubectl("create", "namespace", driver.namespace)
    try:
        yield
    finally:
        driver.kubectl("delete", "namespace", driver.namespace)
