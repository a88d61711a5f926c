"""Commands in pods through the official client. What it reads is shown by tests/nursery_apps/kubectl/test_main.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nursery_apps.edges.official_client import OfficialClient
from nursery_apps.kube_reader import NoAnswer, Ran
from tests.fakes.exec_server import ERROR, STDERR, STDOUT, ExecServer, exited


def run(server: ExecServer, path: Path, *command: str, seconds: float = 10) -> Ran:
    cluster, context = {"name": "c", "cluster": {"server": server.address}}, {"name": "c", "context": {"cluster": "c", "user": "u"}}
    body = {"clusters": [cluster], "users": [{"name": "u", "user": {}}], "contexts": [context], "current-context": "c"}
    config = path / "config"
    config.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **body}))
    with server.running():
        return OfficialClient(kubeconfig=str(config), context=None, timeout_seconds=seconds).run("ns", "pod", command or ("program",))


def test_a_command_its_words_and_what_it_says(tmp_path: Path) -> None:
    server = ExecServer(frames=((STDOUT, "one\n"), (STDERR, "hm\n"), (STDOUT, "two\n"), exited(2)))
    assert run(server, tmp_path, "program", "--settings=---\na: 1 & 2\n") == Ran(2, "one\ntwo\n", "hm\n")
    assert server.path == "/api/v1/namespaces/ns/pods/pod/exec"
    assert server.asked["command"] == ["program", "--settings=---\na: 1 & 2\n"]
    assert run(ExecServer(frames=(exited(0),)), tmp_path) == Ran(0, "", "")


def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="rights to get and create pods/exec in namespace ns"):
        run(ExecServer(refusal=(403, "forbidden")), tmp_path)


def test_what_the_api_server_says_is_told_without_headers(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r'ns/pod: cannot run program there: 404: pods "pod" not found$'):
        run(ExecServer(refusal=(404, 'pods "pod" not found')), tmp_path)


def test_a_command_that_could_not_be_started_or_was_cut_off(tmp_path: Path) -> None:
    status = json.dumps({"status": "Failure", "message": "container not found"})
    with pytest.raises(NoAnswer, match="cannot run program there: container not found"):
        run(ExecServer(frames=((ERROR, status),)), tmp_path)
    with pytest.raises(NoAnswer, match="the connection ended before the command did"):
        run(ExecServer(frames=((STDOUT, "half"),)), tmp_path)


def test_a_server_that_says_nothing_has_its_time(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"program did not end within 0\.2 s"):
        run(ExecServer(silent=True), tmp_path, seconds=0.2)
