"""Alert rules fire when they should, lead to a page that helps, and ask for nothing that is not exported."""

from __future__ import annotations

import copy
import pathlib
import re
from typing import Any, Final

import msgspec
import pytest
import yaml

from dra import alerts
from dra.alerts import Filters
from tests.manifests import promtool, queries, rendered
from tests.manifests.alert_stories import STORIES, Story
from tests.manifests.rendered import KUSTOMIZE, MANIFESTS, render_overlay

ROOT: Final = MANIFESTS.parent
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
COMPONENTS: Final = ("prometheus", "prometheus-taints")


def groups_of(component: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = rendered.one(rendered.read(f"components/{component}"), "PrometheusRule")["spec"]["groups"]
    return groups


RULES: Final = {rule["alert"]: rule for component in COMPONENTS for group in groups_of(component) for rule in group["rules"]}
TAINTING: Final = [name for name, rule in RULES.items() if "intel_gpu_dra" in rule["labels"]]


# --- rules ------------------------------------------------------------------------------------------------------------------------------


def cases_of(name: str, story: Story) -> list[dict[str, Any]]:
    fired = {"exp_labels": RULES[name]["labels"] | story.labels}
    cases = [(story.fires, [fired]), *((series, []) for series in story.silent)]
    return [
        {
            "name": f"{name} {'fires' if expected else 'is silent'} ({number})",
            "interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in series.items()],
            "alert_rule_test": [{"alertname": name, "eval_time": story.at, "exp_alerts": expected}],
        }
        for number, (series, expected) in enumerate(cases)
    ]


@pytest.mark.parametrize("name", RULES)
def test_each_alert_fires_when_it_should_and_not_when_it_should_not(name: str, tmp_path: pathlib.Path) -> None:
    groups = [copy.deepcopy(group) for component in COMPONENTS for group in groups_of(component)]
    for group in groups:
        for rule in group["rules"]:
            del rule["annotations"]  # of them below
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": cases_of(name, STORIES[name])}))
    done = promtool.run("test", "rules", tmp_path / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_story_is_of_an_alert() -> None:
    assert STORIES.keys() == RULES.keys()


@pytest.mark.parametrize("file", ["rules.yaml", "taint-rules.yaml"])
def test_a_prometheus_without_operator_takes_the_plain_files(file: str) -> None:
    done = promtool.run("check", "rules", MANIFESTS / "observability" / file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("component", "file"), [("prometheus", "rules.yaml"), ("prometheus-taints", "taint-rules.yaml")])
def test_the_plain_file_has_the_same_rules(component: str, file: str) -> None:
    assert yaml.safe_load((MANIFESTS / "observability" / file).read_text()) == {"groups": groups_of(component)}


@pytest.mark.parametrize("name", RULES)
def test_annotations_name_labels_that_the_alert_has(name: str) -> None:
    said = set(re.findall(r"\$labels\.(\w+)", " ".join(RULES[name]["annotations"].values())))
    assert said <= STORIES[name].labels.keys()


@pytest.mark.parametrize("name", RULES)
def test_alerts_ask_for_metrics_that_are_exported_with_the_labels_they_have(name: str) -> None:
    assert queries.faults(RULES[name]["expr"]) == []


def test_outcomes_that_are_the_users_are_words_of_the_code() -> None:
    [excluded] = re.findall(r'outcome!~"ok\|([^"]+)"', RULES["IntelGpuPrepareFailing"]["expr"])
    sources = "".join(path.read_text() for folder in ("dra", "nursery_apps") for path in (ROOT / folder).rglob("*.py"))
    assert [word for word in excluded.split("|") if f'reason="{word}"' not in sources] == []


# --- runbooks ---------------------------------------------------------------------------------------------------------------------------


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == RULES.keys()
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("name", RULES)
def test_a_page_says_what_whoever_is_woken_has_to_know(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "What users notice", "Look at", "Cure", "When to ignore it"]
    assert "```" in text, "commands to copy"


@pytest.mark.parametrize("name", RULES)
def test_metrics_that_a_page_names_exist(name: str) -> None:
    said = set(re.findall(r"intel_gpu_dra_\w+", (RUNBOOKS / f"{name}.md").read_text()))
    assert said <= queries.exported().keys()


# --- alerts that taint ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAINTING)
def test_the_receiver_takes_what_alertmanager_makes_of_an_alert(name: str) -> None:
    labels = {"alertname": name, **RULES[name]["labels"], **STORIES[name].labels}
    body = msgspec.json.encode({"version": "4", "status": "firing", "groupLabels": {}, "alerts": [{"status": "firing", "labels": labels}]})
    heard = alerts.parse(body, Filters())
    assert heard.ignored == ()
    [alert] = heard.alerts
    assert (alert.name, alert.node, alert.device) == (name, "n1", "0000-03-00-0-0x56c0")


def test_the_route_leads_those_alerts_and_no_others_to_the_receiver() -> None:
    config = yaml.safe_load((MANIFESTS / "observability" / "alertmanager.yaml").read_text())
    [route] = config["route"]["routes"]
    [(label, value)] = [tuple(re.fullmatch(r'(\w+) = "(\w+)"', one).groups()) for one in route["matchers"]]  # type: ignore[union-attr]
    assert [name for name, rule in RULES.items() if rule["labels"].get(label) == value] == TAINTING != []
    [receiver] = [one for one in config["receivers"] if one["name"] == route["receiver"]]
    [hook] = receiver["webhook_configs"]
    service = rendered.one(rendered.read("components/alert-receiver"), "Service")
    meta, [port] = service["metadata"], service["spec"]["ports"]
    assert hook["url"] == f"http://{meta['name']}.{meta['namespace']}.svc:{port['port']}{alerts.PATH}"
    assert hook["send_resolved"] is True and route["continue"] is True


# --- scraping ---------------------------------------------------------------------------------------------------------------------------


def test_the_pod_monitors_find_the_pods_and_their_port() -> None:
    monitors = [doc for doc in rendered.read("components/prometheus") if doc["kind"] == "PodMonitor"]
    programs = [rendered.one(rendered.read("node-plugin"), "DaemonSet"), rendered.one(rendered.read("controller"), "Deployment")]
    for monitor, program in zip(monitors, programs, strict=True):
        template = program["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        [container] = template["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        set_labels = {one["targetLabel"]: one.get("replacement") for one in endpoint["relabelings"]}
        assert set_labels == {"job": monitor["metadata"]["name"], "node": None}
        assert set_labels["job"] in queries.JOBS


@pytest.mark.parametrize(
    ("resources", "namespace"), [("overlays/controller", "intel-gpu-dra"), ("overlays/kubernetes-1.30", "intel-gpu-resource-driver")]
)
def test_the_components_render_beside_everything_else(tmp_path: pathlib.Path, resources: str, namespace: str) -> None:
    docs = render_overlay(tmp_path, resources, *COMPONENTS, namespace=namespace)
    kinds = [doc["kind"] for doc in docs if doc["metadata"].get("namespace") == namespace]
    assert (kinds.count("PodMonitor"), kinds.count("PrometheusRule")) == (2, 2)
    assert all(doc["metadata"].get("namespace") in (None, namespace) for doc in docs)


def test_the_names_are_what_a_chart_can_rely_on() -> None:
    docs = rendered.read(*(f"components/{component}" for component in COMPONENTS))
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in docs if "metadata" in doc]
    assert names == [
        ("PodMonitor", "intel-gpu-node-plugin"),
        ("PodMonitor", "intel-gpu-controller"),
        ("PrometheusRule", "intel-gpu-dra"),
        ("PrometheusRule", "intel-gpu-dra-taints"),
    ]
    assert (KUSTOMIZE / "components" / "prometheus" / "podmonitors.yaml").exists()
