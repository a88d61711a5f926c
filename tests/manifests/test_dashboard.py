"""Grafana's dashboard asks for what is exported, and shows all of it."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.manifests import promtool, queries, rendered
from tests.manifests.rendered import MANIFESTS

DIRECTORY: Final = MANIFESTS / "observability" / "grafana"
DASHBOARD: Final = json.loads((DIRECTORY / "intel-gpu-dra.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

NOT_SHOWN: Final = {
    "intel_gpu_dra_gpu_energy_joules_total",  # its rate is the power
    "intel_gpu_dra_hung_scans",  # an alert
    "intel_gpu_dra_journal_commits_total",
    "intel_gpu_dra_journal_decisions_total",
    "intel_gpu_dra_journal_bytes_total",
    "intel_gpu_dra_published_slices",
    "intel_gpu_dra_wedged_total",  # in health
}


def asked() -> Iterator[tuple[str, str]]:
    """(panel, query), with Grafana's variables filled in."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$node", ".*")


@pytest.mark.parametrize(("title", "query"), list(asked()))
def test_queries_ask_for_metrics_that_are_exported_with_the_labels_they_have(title: str, query: str) -> None:
    assert queries.faults(query) == [], title


def test_promtool_understands_every_query(tmp_path: pathlib.Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": query} for number, (_, query) in enumerate(asked())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool.run("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_shown_or_said_to_be_left_out() -> None:
    shown = set(re.findall(r"intel_gpu_dra_\w+", " ".join(query for _, query in asked())))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in queries.exported()}
    assert families - {re.sub(r"_bucket$", "", name) for name in shown} == NOT_SHOWN


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            left = re.match(r"(?:histogram_quantile\([\d.]+, )?(?:sum|max|count) by \(([^)]*)\)", target["expr"])
            said = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            if left is not None:
                assert said <= set(left.group(1).split(", ")), panel["title"]


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_query_goes_to_the_data_source_that_is_chosen() -> None:
    sources: list[Any] = [thing["datasource"] for panel in PANELS for thing in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_the_sidecar_finds_the_config_map() -> None:
    [made] = rendered.render_directory(DIRECTORY)
    assert (made["metadata"]["name"], made["metadata"]["labels"]) == ("intel-gpu-dra-dashboard", {"grafana_dashboard": "1"})
    assert json.loads(made["data"]["intel-gpu-dra.json"]) == DASHBOARD
