"""Clusters without the driver: each story installs it, and leaves nothing.

They come last: what other stories have installed for themselves is removed first.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import ClassicNamespace
from tests.e2e.driver import ROOT, Driver
from tests.e2e.pods import Namespace
from tests.e2e.rollout.release import NAME, AnyDriver, HelmFailed, Release, helm, is_classic, nothing_left
from tools.realcluster.cluster import Cluster
from tools.realcluster.site import Site


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(Site(), print)


@pytest.fixture(scope="session")
def bare(api: Api, cluster: Cluster) -> AnyDriver:
    """What is not installed: for questions about it."""
    driver = ClassicDriver(api) if is_classic(api) else Driver(api)
    for overlay in ("cleanup", "cleanup-classic", "overlays/kubernetes-1.30", "overlays/controller", "base"):
        with contextlib.suppress(subprocess.CalledProcessError):  # kinds that this release does not know
            driver.kubectl("delete", "-k", str(ROOT / "manifests" / "kustomize" / overlay), "--ignore-not-found", "--wait=false")
    api.wait("Namespace", lambda all_: driver.namespace not in all_, what="the end of the driver's namespace")
    for item in driver.slices() if not is_classic(api) else []:
        api.delete("ResourceSlice", item["metadata"]["name"])
    for name in ("gpu.intel.com", "gpu.resource.intel.com"):
        shutil.rmtree(cluster.site.root / "kubelet" / "plugins" / name, ignore_errors=True)
    return driver


@pytest.fixture(scope="module")
def release(bare: AnyDriver, cluster: Cluster) -> Iterator[Release]:
    """Not installed at first; nothing is left of it afterwards."""
    release = Release(bare)
    yield release
    if release.is_there():  # a story failed
        with contextlib.suppress(HelmFailed):
            release.uninstall()
        with contextlib.suppress(HelmFailed):
            helm("uninstall", NAME, "-n", release.namespace, "--no-hooks")
    else:
        nothing_left(bare, cluster)


@pytest.fixture
def ns(bare: AnyDriver, release: Release, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Asks for the release so that no pod is left when that goes."""
    api = bare.api
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    api.wait("Namespace", lambda all_: name not in all_, what=f"the end of the namespace {name} of an earlier run")
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    ns = (ClassicNamespace if is_classic(api) else Namespace)(api, name)
    yield ns
    ns.empty()
    api.delete("Namespace", name)
