"""The same with the controller of structured DRA installed: beside the node plugin, until these stories are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.controller.driver import WatchedDriver


@pytest.fixture(scope="module")
def installed(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedDriver]:
    driver = WatchedDriver(api)
    driver.install(tmp_path_factory.mktemp("overlay"))
    yield driver
    driver.uninstall_controller()
