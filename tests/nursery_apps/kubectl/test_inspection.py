"""What is read of an installation, and what becomes of what may not be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dra.explaining.installation import Installation
from nursery_apps.kube_reader import Answer, NoAnswer
from nursery_apps.kubectl import inspection
from nursery_apps.kubectl.reading import ALL, Reading
from tests.fakes.api_table import OBJECTS, Server
from tests.fakes.gpu_clusters import own_pod

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
GATE = b'kubernetes_feature_enabled{name="DRADeviceTaints",stage="BETA"} 1\n'


def server(**more: Any) -> Server:
    made = Server("v1.36.3", ("v1", OBJECTS))
    made.answers |= {
        "/api/v1/pods": {"items": [own_pod()]},
        "/apis/apps/v1/daemonsets": {"items": [{"metadata": {"name": "node-plugin", "namespace": "intel-gpu-dra"}}]},
        "/apis/apps/v1/deployments": {"items": []},
        f"{ADMISSION}/validatingadmissionpolicies": {"items": [{"metadata": {"name": "p"}}]},
        f"{ADMISSION}/validatingadmissionpolicybindings": {"items": []},
        f"{ADMISSION}/validatingwebhookconfigurations": {"items": []},
        "/apis/coordination.k8s.io/v1/namespaces/intel-gpu-dra/leases": {"items": [{"metadata": {"name": "gpu-controller"}}]},
        "/apis/discovery.k8s.io/v1/namespaces/intel-gpu-dra/endpointslices": {"items": []},
        "/metrics": GATE,
        **more,
    }
    return made


def read(made: Server) -> Installation:
    reading = Reading(made, lambda: "2026-01-01T00:00:00Z")
    return inspection.read(reading, reading.cluster(ALL, needed=()))


def test_what_an_installation_is_made_of() -> None:
    made = server()
    found = read(made)
    assert found.unread == {} and found.gates == {"DRADeviceTaints": True}
    assert [len(each) for each in (found.daemon_sets, found.leases, found.policies)] == [1, 1, 1]
    assert ("/apis/apps/v1/daemonsets", {"limit": "500", "labelSelector": "app.kubernetes.io/name=intel-gpu-dra"}) in made.asked


def test_without_any_right_everything_is_unread_and_named() -> None:
    found = read(server(**dict.fromkeys(server().answers.keys() - {"/version", "/apis/resource.k8s.io", "/apis/resource.k8s.io/v1"}, 403)))
    assert found.gates is None and found.daemon_sets == ()
    assert "right to get the URL /metrics" in found.unread["metrics"]
    assert "right to list daemonsets.apps" in found.unread["daemonsets"]


def test_metrics_that_do_not_come_in_time_are_done_without() -> None:
    class Slow(Server):
        def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
            if path == "/metrics":
                raise NoAnswer("gives no answer within 15 s")
            return super().get(path, query)

    made = Slow("v1.36.3", ("v1", OBJECTS))
    made.answers = server().answers
    assert read(made).unread == {"metrics": "gives no answer within 15 s"}
