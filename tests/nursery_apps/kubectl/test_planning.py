"""What a file would do on each node, as the plugins say."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console

from nursery_apps.edges import yaml_text
from nursery_apps.kube_reader import Answer, NoAnswer, Ran
from nursery_apps.kubectl import planning
from nursery_apps.kubectl.command import Given
from nursery_apps.kubectl.problems import Misused, Problem
from nursery_apps.kubectl.reading import Reading
from tests.fakes.gpu_clusters import own_pod

FILE = "apiVersion: gpu.intel.com/v1alpha1\nkind: NodePluginConfiguration\ngracePeriod: 5s\n"
CHANGES = Ran(0, 'plan: apply gracePeriod: "20s" -> "5s"\n', "")


class Nodes:
    """A KubeReader of a cluster with a plugin on each of these nodes, and what each of them says."""

    namespace = "default"

    def __init__(self, said: Mapping[str, Ran | NoAnswer], *, ready: bool = True) -> None:
        self._said, self._ready = said, ready
        self.ran: list[Sequence[str]] = []

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        answers: dict[str, Any] = {
            "/version": {"gitVersion": "v1.36.3"},
            "/apis/resource.k8s.io": {"versions": []},
            "/api/v1/pods": {"items": [own_pod(node, ready=self._ready) for node in self._said]},
        }
        return Answer(200, json.dumps(answers[path]).encode())

    def run(self, namespace: str, pod: str, command: Sequence[str]) -> Ran:
        assert namespace == "intel-gpu-dra"
        self.ran.append(command)
        said = self._said[pod.removeprefix("node-plugin-")]
        if isinstance(said, NoAnswer):
            raise said
        return said


def plan(nodes: Nodes, *only: str, output: str = "table", file: str = FILE) -> tuple[int, str]:
    out = io.StringIO()
    options = argparse.Namespace(filename="new.yaml", node=list(only), output=output, all_namespaces=False, namespace=None)
    console = Console(file=out, width=120)
    reading = Reading(nodes, lambda: "now")

    def parse(text: str, name: str) -> object:
        return yaml_text.load(text.encode(), name)

    given = Given(options, reading, console, out.write, {"new.yaml": file}.__getitem__, parse, lambda *_: None)
    code = planning.COMMAND.run(given)
    return code, out.getvalue()


def test_nodes_with_the_same_plan_are_told_together() -> None:
    nodes = Nodes({"n1": CHANGES, "n2": CHANGES, "n3": Ran(0, "", "")})
    code, told = plan(nodes)
    assert code == 0
    assert told == 'n1, n2\n  plan: apply gracePeriod: "20s" -> "5s"\nn3\n  nothing would change\n'
    assert nodes.ran == [["gpu-node-plugin", "plan", f"--settings={FILE}"]] * 3


def test_what_a_plugin_remarks_is_passed_on() -> None:
    remark = "(/var/lib/kubelet/plugins/gpu.intel.com/applied.json does not exist: comparing with the defaults)"
    code, told = plan(Nodes({"n1": Ran(0, CHANGES.out, f"{remark}\n"), "n2": CHANGES}))
    assert code == 0
    assert "comparing with the defaults" in told and told.count("plan: apply") == 2
    assert json.loads(plan(Nodes({"n1": Ran(0, "", remark)}), output="json")[1])["nodes"][0]["remark"] == remark


def test_a_file_that_would_be_refused_and_a_node_that_does_not_answer() -> None:
    wrong = Ran(2, "", "gpu-node-plugin: --settings: gracePeriod: ...\n")
    code, told = plan(Nodes({"n1": wrong, "n2": NoAnswer("intel-gpu-dra/node-plugin-n2: cannot run gpu-node-plugin there")}))
    assert code == 1
    assert "n1\n  --settings: gracePeriod: ...\n" in told and "n2\n  intel-gpu-dra/node-plugin-n2: cannot run" in told


def test_only_some_nodes_and_for_scripts() -> None:
    code, told = plan(Nodes({"n1": CHANGES, "n2": CHANGES}), "n2", "n9", output="json")
    assert code == 1
    body = json.loads(told)
    assert (body["kind"], [node["node"] for node in body["nodes"]]) == ("Plan", ["n2", "n9"])
    assert body["nodes"][1]["error"] == "no node plugin is Ready there"


def test_no_plugin_at_all() -> None:
    with pytest.raises(Problem, match="doctor"):
        plan(Nodes({"n1": CHANGES}, ready=False))


def test_the_plugins_config_map_is_taken_for_what_it_holds() -> None:
    nodes = Nodes({"n1": CHANGES})
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "node-plugin-settings"}, "data": {"settings.yaml": FILE}}
    assert plan(nodes, file=json.dumps(manifest))[0] == 0
    assert nodes.ran == [["gpu-node-plugin", "plan", f"--settings={FILE}"]]
    with pytest.raises(Misused, match=r"new\.yaml: this ConfigMap has no data\.settings\.yaml"):
        plan(nodes, file=json.dumps({"kind": "ConfigMap", "data": {"controller.yaml": FILE}}))
    with pytest.raises(Misused, match=r"new\.yaml, data\.settings\.yaml: .*unknown field `gracePeriods`; did you mean `gracePeriod`"):
        plan(nodes, file=json.dumps({**manifest, "data": {"settings.yaml": FILE.replace("Period", "Periods")}}))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (f"{FILE}gracePeriod: 6s\n", "line 4, column 1"),
        (FILE.replace("5s", "soon"), "gracePeriod"),
        (FILE.replace("NodePlugin", "Controller"), "want gpu.intel.com/v1alpha1 NodePluginConfiguration"),
        (FILE + "#" * planning.LONGEST, "at most 65536 can be sent"),
    ],
)
def test_a_file_that_no_plugin_would_take_is_sent_to_none(file: str, said: str) -> None:
    nodes = Nodes({"n1": CHANGES})
    with pytest.raises(Misused) as refused:
        plan(nodes, file=file)
    assert said in str(refused.value) and nodes.ran == []
