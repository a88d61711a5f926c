"""Stories of pods and administrators on a real cluster: one cluster and one installation for all, a namespace for each.

`tools/cluster test` runs them and says which cluster in the environment.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.driver import Driver
from tests.e2e.own_node import OwnNode
from tests.e2e.pods import Namespace
from tools.realcluster.cluster import Cluster
from tools.realcluster.faults import Faults
from tools.realcluster.site import Site

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stories of the other way of allocating are skipped before anything is installed for them."""
    classic = Api(os.environ["KUBECONFIG"]).version < (1, 31)
    for item in items:
        if HERE / "rollout" in item.path.parents:
            continue  # of both
        if HERE in item.path.parents and (HERE / "classic" in item.path.parents) is not classic:
            why = "here the driver's controller allocates" if classic else "here the scheduler allocates"
            item.add_marker(pytest.mark.skip(reason=f"{why}: {'up to' if classic else 'since'} Kubernetes {'1.30' if classic else '1.31'}"))


@pytest.fixture(scope="session")
def api() -> Api:
    return Api(os.environ["KUBECONFIG"])


@pytest.fixture(scope="session")
def installed(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    driver = Driver(api)
    driver.install(tmp_path_factory.mktemp("overlay"))
    return driver


@pytest.fixture
def driver(installed: Driver) -> Iterator[Driver]:
    """The installation, as a story finds it and must leave it: ready, with nothing prepared."""
    installed.wait_ready()
    yield installed
    if installed.restarts():
        installed.renew()  # the kubelet would let the next crash wait, longer with each
    installed.wait_ready()
    installed.nothing_prepared()


@pytest.fixture
def node(driver: Driver) -> OwnNode:
    if "CLUSTER_DIR" not in os.environ:
        pytest.skip("needs a node that tools/cluster made: this cluster is somebody else's")
    return OwnNode(driver, Cluster(Site(), print))


@pytest.fixture
def faults(node: OwnNode) -> Faults:
    return Faults(node.cluster)


@pytest.fixture
def ns(api: Api, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    api.wait("Namespace", lambda all_: name not in all_, what=f"the end of the namespace {name} of an earlier run")
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    ns = Namespace(api, name)
    yield ns
    ns.empty()
    api.delete("Namespace", name)
