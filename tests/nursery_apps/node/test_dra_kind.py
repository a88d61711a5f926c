"""Which DRA the kubelet speaks is learnt, remembered, and never guessed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dra.kubernetes_releases import UnsupportedRelease
from dra.names import NodeName
from nursery_apps.latest import Latest
from nursery_apps.node import dra_kind
from nursery_apps.node.dra_kind import Crossing, DraKind
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import Unavailable
from tests.fakes.claim_node import in_place
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.state_dir import MemoryStateDir

CLASSIC, STRUCTURED = DraKind.CLASSIC, DraKind.STRUCTURED


def api(version: str) -> FakeKubeApi:
    kube = FakeKubeApi()
    kube.put("nodes", {"metadata": {"name": "n1"}, "status": {"nodeInfo": {"kubeletVersion": version}}})
    return kube


async def choose(kube: FakeKubeApi, state: MemoryStateDir) -> DraKind:
    return await dra_kind.choose(kube, NodeName("n1"), state, run_blocking=in_place, random=lambda: 0.5)


@pytest.mark.parametrize(
    ("version", "kind"),
    [("v1.28.0", CLASSIC), ("v1.30.14-eks-1", CLASSIC), ("v1.31.0", STRUCTURED), ("v1.37.2", STRUCTURED), ("", None), ("unknown", None)],
)
def test_the_kubelets_release_decides(version: str, kind: DraKind | None) -> None:
    assert dra_kind.kind_for(version) is kind


async def test_the_first_start_waits_for_the_node(autojump_clock: MockClock) -> None:
    state = MemoryStateDir()
    kube = api("v1.29.3")
    kube.failures = [("get", Unavailable(0, "Down", "down"))] * 20
    assert await choose(kube, state) is CLASSIC
    assert trio.current_time() > 100 and state.files == {"dra-kind": b"classic\n"}


async def test_a_start_without_an_api_server_goes_on_as_before(autojump_clock: MockClock) -> None:
    kube = api("v1.31.0")
    kube.failures = [("get", Unavailable(0, "Down", "down"))] * 1000
    assert await choose(kube, MemoryStateDir({"dra-kind": b"classic\n"})) is CLASSIC
    assert trio.current_time() <= 6
    calls = len(kube.calls)
    assert await choose(kube, MemoryStateDir({"dra-kind": b"structured\n"})) is STRUCTURED
    assert await choose(kube, MemoryStateDir({"journal": b""})) is STRUCTURED
    assert len(kube.calls) == calls, "structured DRA that is remembered asks nobody"


async def test_an_upgraded_kubelet_is_noticed_at_start(autojump_clock: MockClock) -> None:
    state = MemoryStateDir({"dra-kind": b"classic\n"})
    assert await choose(api("v1.31.0"), state) is STRUCTURED
    assert state.files == {"dra-kind": b"structured\n"}


async def test_a_kubelet_that_crosses_under_a_running_plugin_stops_it_once(autojump_clock: MockClock) -> None:
    state, stop = MemoryStateDir({"dra-kind": b"classic\n"}), trio.Event()
    node: Latest[OwnNode | None] = Latest(None)
    crossing = Crossing(CLASSIC, node, state, in_place)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crossing.run, stop)
        for version in ("v1.28.1", "v1.30.9", ""):
            node.set(OwnNode("u", kubelet_version=version))
            await trio.sleep(1)
            assert not stop.is_set() and not crossing.is_crossed()
        node.set(OwnNode("u", kubelet_version="v1.31.2"))
        await stop.wait()
    assert state.files == {"dra-kind": b"structured\n"}


@pytest.mark.parametrize("remembered", [{}, {"dra-kind": b"classic\n"}])
async def test_a_kubelet_that_is_too_old_ends_the_plugin_with_one_sentence(remembered: dict[str, bytes]) -> None:
    state = MemoryStateDir(dict(remembered))
    with pytest.raises(UnsupportedRelease, match=r"^the kubelet is v1\.27\.16, .*1\.28 and newer.*$"):
        await choose(api("v1.27.16"), state)
    assert state.files == remembered, "nothing is decided for it"
