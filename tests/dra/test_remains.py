"""What is said of each node, and which claims are the driver's."""

from __future__ import annotations

import msgspec

from dra import remains
from dra.kube import classic
from dra.kube.watched import PluginPod, WatchedClaim
from dra.remains import HeldClaim


def claim(name: str, *devices: tuple[str, str], users: int = 0) -> WatchedClaim:
    results = [{"driver": driver, "pool": pool} for driver, pool in devices]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": [{"name": f"p{number}"} for number in range(users)]}
    return msgspec.convert({"metadata": {"name": name, "namespace": "d"}, "status": status}, WatchedClaim)


def test_only_allocated_claims_with_our_devices_count() -> None:
    found = [
        claim("ours", ("gpu.intel.com", "n2"), ("gpu.intel.com", "n1"), users=1),
        claim("theirs", ("gpu.example.com", "n1")),
        WatchedClaim(metadata=claim("new").metadata),
    ]
    assert remains.claims(found) == [HeldClaim("d", "ours", ("n1", "n2"), ("p0",))]


def test_a_classic_claim_is_ours_by_its_handles_or_its_driver() -> None:
    def of(name: str, **status: object) -> classic.ResourceClaim:
        return msgspec.convert({"metadata": {"name": name, "namespace": "d"}, "status": status}, classic.ResourceClaim)

    ours = {"resourceHandles": [{"driverName": "gpu.resource.intel.com", "data": ""}]}
    found = [
        of("handle", allocation=ours),
        of("driver", driverName="gpu.resource.intel.com", allocation={}),
        of("theirs", driverName="other", allocation={}),
        of("pending", driverName="gpu.resource.intel.com"),
    ]
    assert [one.name for one in remains.classic_claims(found)] == ["driver", "handle"]


def test_lines_name_who_holds_what_within_bounds() -> None:
    held = remains.claims([claim(f"c{number}", ("gpu.intel.com", "n1"), users=9) for number in range(9)])
    text = remains.line("n1", 0, held, None)
    assert "claim d/c0 (reserved for p0, p1, p2, p3, p4, p5 and 3 more)" in text and text.endswith("and 3 more")
    assert "still offered" in remains.line("n1", 3, held, None)
    assert "Events of the Node" in remains.line("n2", 0, held, None)
    assert remains.line("n1", 0, held, "no plugin is Ready on it") == "n1: no plugin is Ready on it"


def test_a_node_can_act_with_one_ready_plugin() -> None:
    def pod(node: str, ready: str, **more: object) -> PluginPod:
        metadata = {"name": "p", "labels": {"app.kubernetes.io/component": "node-plugin"}, **more}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
        return msgspec.convert({"metadata": metadata, "spec": {"nodeName": node}, "status": status}, PluginPod)

    pods = [pod("n1", "False"), pod("n1", "True"), pod("n2", "False"), pod("n3", "True", deletionTimestamp="2026-01-01T00:00:00Z")]
    assert remains.ready_nodes(pods) == {"n1"} and remains.unready_nodes(pods) == {"n2"}
    assert remains.unable("n1", {"n1": 0}, frozenset({"n1"})) is None
    assert remains.unable("n1", {}, frozenset({"n1"})) == "there is no such Node any more"
