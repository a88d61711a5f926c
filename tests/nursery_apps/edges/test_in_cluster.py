from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nursery_apps.edges import in_cluster
from nursery_apps.edges.in_cluster import InClusterCredentials
from nursery_apps.seams import Unavailable

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("one\n")
    return tmp_path


async def test_it_reads_what_a_pod_is_given(account: Path) -> None:
    identity = await InClusterCredentials(POD, directory=str(account)).identity()
    assert (identity.transport.server, identity.transport.ca_pem, identity.authorization) == ("https://10.96.0.1:443", "CA", "Bearer one")
    six = {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert (await InClusterCredentials(six, directory=str(account)).identity()).transport.server == "https://[fd00::1]:443"
    assert in_cluster.available(POD) and not in_cluster.available({})


async def test_a_rotated_token_is_used_at_once(account: Path) -> None:
    credentials = InClusterCredentials(POD, directory=str(account))
    await credentials.identity()
    (account / "new").write_text("two")
    os.replace(account / "new", account / "token")
    assert (await credentials.identity()).authorization == "Bearer two"


@pytest.mark.parametrize("how", ["minute", "refusal"])
async def test_it_is_read_again_once_a_minute_and_after_a_refusal(account: Path, autojump_clock: MockClock, how: str) -> None:
    credentials = InClusterCredentials(POD, directory=str(account))
    await credentials.identity()
    (account / "ca.crt").write_text("CA2")
    assert (await credentials.identity()).transport.ca_pem == "CA"
    if how == "minute":
        await trio.sleep(61)
    else:
        credentials.refused()
    assert (await credentials.identity()).transport.ca_pem == "CA2"


async def test_without_a_token_it_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="automountServiceAccountToken"):
        await InClusterCredentials(POD, directory=str(tmp_path)).identity()
