"""Every command in the documents can work, as far as that can be said without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import commands, markdown
from tests.docs.commands import Wrong
from tests.docs.markdown import PAGES, ROOT, Command

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def faults(found: list[Command]) -> list[str]:
    wrong = []
    for command in found:
        try:
            commands.judge(command.text)
        except Wrong as fault:
            wrong.append(f"{command} - {fault}")
    return wrong


@every_page
def test_commands_that_are_shown_can_work(page: Path) -> None:
    assert faults(list(markdown.typed(page))) == []


@every_page
def test_commands_that_are_quoted_can_work(page: Path) -> None:
    found = [command for command in markdown.quoted(page) if command.text.startswith(commands.OURS) and " " in command.text]
    assert faults(found) == []


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    wrong = []
    for named in markdown.quoted(page):
        if commands.PATHS.fullmatch(named.text) and "*" not in named.text:
            below = [ROOT / named.text, page.parent / named.text]
            if not any(path.exists() for path in below):
                wrong.append(str(named))
    assert wrong == []


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("kubectl apply -k manifests/kustomize/bas", "does not exist"),
        ("kubectl apply -f manifests/examples/structured/no-gpu.yaml", "does not exist"),
        ("kubectl frobnicate pods", "nobody knows"),
        ("kubectl -n intel-gpu get pods", "namespace"),
        ("kubectl -n intel-gpu-dra exec POD -- gpu-node-plugin relod", "invalid choice"),
        ("tools/tset", "does not exist"),
        ("tools/cluster test --versoin 1.33.13", "--versoin"),
        ("tools/cluster tset", "no tset"),
        ("gpu-node-plugin discover --jsno", "--jsno"),
        ("gpu-controller taint --nod x --effect NoScheduel", "NoScheduel"),
        ("gpu-node-plugin discover --simulate tools/machines/server-4x-b60.json:nothing", "exit code 2"),
        ("kind create cluster --config manifests/examples/clusters/kubeadm-1.31.yaml", "no cluster of kind"),
        ("frobnicate --all", "nobody knows"),
        ("cat tests/docs/nothing.py", "does not exist"),
        ("helm install x manifests/helm/intel-gpu-dra --set nodePlugin.kubletRoot=/x", "has no value"),
    ],
)
def test_a_command_that_cannot_work_is_found(command: str, word: str) -> None:
    with pytest.raises(Wrong, match=word):
        commands.judge(command)


def test_all_commands_of_a_line_are_looked_at() -> None:
    commands.judge("tools/image && kind load image-archive build/image/x.tar   # then more")
    with pytest.raises(Wrong, match="tools/imgae"):
        commands.judge("A=1 tools/test && B=2 tools/imgae > /dev/null")


def test_excuses_have_reasons_and_are_few() -> None:
    assert all(commands.EXCUSED.values()) and len(commands.EXCUSED) <= 6
