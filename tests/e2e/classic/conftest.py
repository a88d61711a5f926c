"""The same on Kubernetes 1.28 to 1.30: the driver's controller is installed too, and users write claims as they were written then."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.classic.driver import ClassicDriver
from tests.e2e.classic.users import ClassicNamespace


@pytest.fixture(scope="session")
def installed(api: Api, tmp_path_factory: pytest.TempPathFactory) -> ClassicDriver:
    driver = ClassicDriver(api)
    driver.install(tmp_path_factory.mktemp("overlay"))
    return driver


@pytest.fixture
def driver(installed: ClassicDriver) -> Iterator[ClassicDriver]:
    """The installation, as a story finds it and must leave it: ready, with nothing held."""
    installed.wait_ready()
    yield installed
    if installed.restarts():
        installed.renew()  # the kubelet would let the next crash wait, longer with each
    installed.wait_ready()
    installed.nothing_held()


@pytest.fixture
def ns(driver: ClassicDriver, request: pytest.FixtureRequest) -> Iterator[ClassicNamespace]:
    """Asks for the driver so that the namespace is empty by the time it is looked at what is held."""
    api = driver.api
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    api.wait("Namespace", lambda all_: name not in all_, what=f"the end of the namespace {name} of an earlier run")
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    ns = ClassicNamespace(api, name)
    yield ns
    ns.empty()
    api.delete("Namespace", name)
