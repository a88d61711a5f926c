from __future__ import annotations

import msgspec
import pytest

from dra.classic import scheduling
from dra.errors import NotYet
from dra.kube.classic import Pod, PodSchedulingContext

POD = msgspec.convert(
    {
        "metadata": {"name": "p", "namespace": "ns", "uid": "pod-1"},
        "spec": {
            "resourceClaims": [
                {"name": "own", "source": {"resourceClaimName": "shared-claim"}},
                {"name": "made", "source": {"resourceClaimTemplateName": "t"}},
                {"name": "none", "source": {"resourceClaimTemplateName": "t"}},
            ]
        },
        "status": {"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p-made-x"}, {"name": "none"}]},
    },
    Pod,
)


def context(
    *, selected: str = "", nodes: tuple[str, ...] = (), said: dict[str, list[str]] | None = None, owner: str = "pod-1"
) -> PodSchedulingContext:
    body = {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "3",
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {"selectedNode": selected, "potentialNodes": list(nodes)},
        "status": {"resourceClaims": [{"name": name, "unsuitableNodes": bad} for name, bad in (said or {}).items()]},
    }
    return msgspec.convert(body, PodSchedulingContext)


def test_a_pods_claims_are_found_by_name_or_in_its_status() -> None:
    assert [(each.in_pod, each.name, each.generated) for each in scheduling.claims_of(POD)] == [
        ("own", "shared-claim", False),
        ("made", "p-made-x", True),
    ]


def test_a_claim_that_is_not_made_yet_is_waited_for() -> None:
    with pytest.raises(NotYet, match="claim made of pod ns/p is not made from its template yet"):
        scheduling.claims_of(msgspec.structs.replace(POD, status=msgspec.convert({}, type(POD.status))))


def test_a_context_of_an_earlier_pod_of_the_same_name_is_not_the_pods() -> None:
    assert scheduling.is_of_pod(context(), POD)
    assert not scheduling.is_of_pod(context(owner="pod-0"), POD)


def test_the_selected_node_is_asked_about_too() -> None:
    assert scheduling.nodes_of(context(selected="c", nodes=("a", "b"))) == ["a", "b", "c"]
    assert scheduling.nodes_of(context(selected="b", nodes=("a", "b"))) == ["a", "b"]


def test_more_nodes_than_the_api_server_takes_are_cut_and_the_selected_one_kept() -> None:
    nodes = [f"n{number}" for number in range(200)]
    assert scheduling.unsuitable(nodes, "n199")[-2:] == ["n126", "n199"]
    assert len(scheduling.unsuitable(nodes, "elsewhere")) == len(scheduling.unsuitable(nodes * 2, "n5")) == 128


def test_an_answer_that_is_there_already_is_not_written_again() -> None:
    assert scheduling.status_patch(context(said={"c": ["b", "a"]}), {"c": ["a", "b"]}) is None
    assert scheduling.status_patch(context(), {"c": []}) is not None, "an empty answer is an answer"


def test_entries_of_other_drivers_are_written_back() -> None:
    body = scheduling.status_patch(context(said={"nic": ["x"], "c": ["a"]}), {"c": []})
    assert body == {
        "metadata": {"uid": "u", "resourceVersion": "3"},
        "status": {"resourceClaims": [{"name": "nic", "unsuitableNodes": ["x"]}, {"name": "c", "unsuitableNodes": []}]},
    }
