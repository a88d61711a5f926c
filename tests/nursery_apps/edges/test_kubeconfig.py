from __future__ import annotations

import base64
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from nursery_apps.edges import kubeconfig
from nursery_apps.edges.kubeconfig import KubeconfigCredentials
from nursery_apps.seams import Unavailable


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(path: Path, user: dict[str, Any] | None, *, name: str = "main", **cluster: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": "https://k8s.example:6443", **cluster}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def plugin(directory: Path, body: str) -> dict[str, Any]:
    """An exec plugin that counts its runs in a file."""
    script = directory / "plugin.py"
    script.write_text(f"import json, os\nopen({str(directory / 'runs')!r}, 'a').write('x')\n{body}")
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)], "interactiveMode": "Never"}


def credential(**status: Any) -> str:
    return f"print(json.dumps({{'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential', 'status': {status!r}}}))"


async def test_plain_data_needs_no_child(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        {"client-certificate-data": b64("CERT"), "client-key-data": b64("KEY"), "token": "t"},
        **{"certificate-authority-data": b64("CA"), "tls-server-name": "kubernetes", "insecure-skip-tls-verify": True},
    )
    found = kubeconfig.plain(path, None)
    assert found is not None and found.authorization == "Bearer t"
    transport = found.transport
    assert (transport.ca_pem, transport.cert_pem, transport.key_pem) == ("CA", "CERT", "KEY")
    assert (transport.server, transport.server_name, transport.insecure) == ("https://k8s.example:6443", "kubernetes", True)


async def test_files_are_found_beside_it_and_a_rotated_token_is_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "ca.pem").write_text("CA")
    path = write(tmp_path / "config", {"tokenFile": "token"}, **{"certificate-authority": "ca.pem"})
    credentials = KubeconfigCredentials(path)
    identity = await credentials.identity()
    assert (identity.authorization, identity.transport.ca_pem) == ("Bearer one", "CA")
    (tmp_path / "new").write_text("two\n")
    os.replace(tmp_path / "new", tmp_path / "token")
    assert (await credentials.identity()).authorization == "Bearer two"


async def test_a_plain_http_server_without_a_user(tmp_path: Path) -> None:
    path = write(tmp_path / "config", None, server="http://127.0.0.1:8080")
    identity = await KubeconfigCredentials(path).identity()
    assert (identity.transport.server, identity.authorization) == ("http://127.0.0.1:8080", None)


@pytest.mark.parametrize("text", ["", "[]", "{", "clusters: 1", "current-context: x", "current-context: x\ncontexts: [{name: x}]"])
async def test_a_damaged_file_is_told_and_so_is_a_missing_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(Unavailable, match="kubeconfig"):
        await KubeconfigCredentials(str(tmp_path / "config")).identity()
    with pytest.raises(Unavailable, match="No such file"):
        await KubeconfigCredentials(str(tmp_path / "absent")).identity()


async def test_an_exec_plugin_gives_a_token_and_is_asked_again_only_when_that_is_refused(tmp_path: Path) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    body = credential(token="from-plugin", expirationTimestamp=later.strftime("%Y-%m-%dT%H:%M:%SZ"))
    path = write(tmp_path / "config", {"exec": plugin(tmp_path, body)})
    credentials = KubeconfigCredentials(path)
    assert (await credentials.identity()).authorization == "Bearer from-plugin"
    await credentials.identity()
    assert (tmp_path / "runs").read_text() == "x"
    credentials.refused()
    await credentials.identity()
    assert (tmp_path / "runs").read_text() == "xx"


async def test_an_exec_plugin_gives_a_certificate_and_no_key_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = trustme.CA().issue_cert("x")
    cert, key = issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()
    ca = b64(cert)
    path = write(
        tmp_path / "config",
        {"exec": plugin(tmp_path, credential(clientCertificateData=cert, clientKeyData=key))},
        **{"certificate-authority-data": ca},
    )
    before = {place: set(os.listdir(place)) for place in ("/dev/shm", "/tmp")}
    identity = await KubeconfigCredentials(path).identity()
    assert (identity.transport.cert_pem, identity.transport.key_pem, identity.transport.ca_pem) == (cert, key, cert)
    for place, names in before.items():
        left = [Path(place, name) for name in set(os.listdir(place)) - names]
        assert not [one for one in left if one.is_file() and os.access(one, os.R_OK) and key.encode() in one.read_bytes()]


async def test_a_plugin_that_fails_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "config", {"exec": plugin(tmp_path, "raise SystemExit(3)")})
    with pytest.raises(Unavailable, match="exec plugin gave no credentials"):
        await KubeconfigCredentials(path).identity()


async def test_several_files_and_a_chosen_context(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"token": "one"}, name="one")
    two = write(tmp_path / "two", {"token": "two"}, name="two")
    identity = await KubeconfigCredentials(f"{one}:{two}", "two").identity()
    assert identity.authorization == "Bearer two"
    with pytest.raises(Unavailable):
        await KubeconfigCredentials(f"{one}:{two}", "three").identity()


def test_where_kubectl_would_look() -> None:
    assert kubeconfig.default_path({"KUBECONFIG": "/a:/b", "HOME": "/home/x"}) == "/a:/b"
    assert kubeconfig.default_path({"HOME": "/home/x"}) == "/home/x/.kube/config"


def test_what_the_child_prints_is_what_the_parent_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "config", {"token": "t"}, **{"proxy-url": "http://proxy:3128"})
    assert kubeconfig.plain(path, None) is None
    import subprocess

    printed = subprocess.run([sys.executable, "-m", "nursery_apps.edges.kubeconfig", path], capture_output=True, check=True).stdout
    assert json.loads(printed)["transport"]["proxy"] == "http://proxy:3128"
