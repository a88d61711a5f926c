"""What is read of a cluster, and what is said when it may not be."""

from __future__ import annotations

from typing import Any

import pytest

from nursery_apps.kubectl.problems import Missing, Problem, Refused
from nursery_apps.kubectl.reading import GPUS, Reading
from tests.fakes.api_table import GROUP, OBJECTS, Server


def read(server: Server, **more: Any) -> Any:
    return Reading(server, lambda: "2026-01-01T00:00:00Z").cluster(GPUS, **more)


def test_the_newest_version_is_read_and_older_shapes_become_the_newest() -> None:
    server = Server("v1.33.1", ("v1beta1", OBJECTS), ("v1beta2", OBJECTS), ("v1alpha3", (*OBJECTS, "devicetaintrules")))
    assert read(server).api == "v1beta2"
    assert f"{GROUP}/v1alpha3/devicetaintrules" in {path for path, _ in server.asked}
    old = Server("v1.31.0", ("v1alpha3", OBJECTS))
    device = {"name": "d", "basic": {"capacity": {"memory": "1Gi"}}}
    old.answers[f"{GROUP}/v1alpha3/resourceslices"] = {"items": [{"metadata": {"name": "s"}, "spec": {"devices": [device]}}]}
    assert read(old).slices[0]["spec"]["devices"] == [{"name": "d", "capacity": {"memory": {"value": "1Gi"}}}]


def test_all_pages_are_read() -> None:
    server = Server("v1.34.0", ("v1", OBJECTS))

    def page(query: dict[str, str]) -> Any:
        name, further = ("b", "") if query.get("continue") == "x" else ("a", "x")
        return {"items": [{"metadata": {"name": name}, "spec": {}}], "metadata": {"continue": further}}

    server.answers[f"{GROUP}/v1/resourceslices"] = page
    assert [each["metadata"]["name"] for each in read(server).slices] == ["a", "b"]


def test_a_right_that_is_missing_is_named() -> None:
    server = Server("v1.34.0", ("v1", OBJECTS))
    server.answers[f"{GROUP}/v1/resourceclaims"] = 403
    with pytest.raises(Refused, match=r"needs the right to list resourceclaims\.resource\.k8s\.io in all namespaces"):
        read(server)
    with pytest.raises(Missing):  # a 404 of the namespaced path: the 403 above was for all of them
        Reading(server, lambda: "").one("resourceclaims", "ml", "c")


def test_what_can_be_done_without_is_left_out_and_said() -> None:
    server = Server("v1.34.0", ("v1", OBJECTS))
    server.answers["/api/v1/nodes"] = 403
    seen = read(server)
    assert seen.nodes == () and "right to list nodes" in seen.unread["nodes"]


def test_claims_of_one_namespace() -> None:
    server = Server("v1.34.0", ("v1", OBJECTS))
    server.answers[f"{GROUP}/v1/namespaces/ml/resourceclaims"] = {"items": [{"metadata": {"name": "c", "namespace": "ml"}}]}
    seen = read(server, claims_namespace="ml")
    assert len(seen.claims) == 1 and seen.namespace == "ml"


def test_credentials_and_servers_that_are_none() -> None:
    server = Server("v1.34.0", ("v1", OBJECTS))
    server.answers["/version"] = 401
    with pytest.raises(Refused, match="does not accept these credentials"):
        read(server)
    server.answers["/version"] = b"<html>"
    with pytest.raises(Problem, match="no Kubernetes API server"):
        read(server)
    server.answers["/version"] = 503
    with pytest.raises(Refused, match=r"the server's version \(503\): no"):
        read(server)


def test_a_cluster_without_dra_has_nothing() -> None:
    server = Server("v1.34.0")
    del server.answers[GROUP]
    assert read(server).slices == ()


def test_classic_kinds_are_read_where_claims_are_classic() -> None:
    server = Server("v1.28.1", ("v1alpha2", ("resourceclaims", "resourceclasses", "podschedulingcontexts")))
    with pytest.raises(Refused, match="gpuallocationstates"):
        server.answers["/apis/gpu.resource.intel.com/v1alpha2/gpuallocationstates"] = 403
        read(server)
    server.answers["/apis/gpu.resource.intel.com/v1alpha2/gpuallocationstates"] = {"items": [{"metadata": {"name": "n1"}}]}
    assert read(server).is_classic and len(read(server).states) == 1
