"""The API server that is measured against: the embedded one as a process, or a real one by its kubeconfig."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]


class Server:
    def __init__(self, kubeconfig: Path, url: str, context: ssl.SSLContext | None = None) -> None:
        self.kubeconfig = kubeconfig
        self._url, self._context = url, context

    def open(self, method: str, path: str, body: object = None, *, seconds: float = 30) -> Any:
        """A response to read from."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        return urllib.request.urlopen(request, timeout=seconds, context=self._context)

    def call(self, method: str, path: str, body: object = None) -> Any:
        with self.open(method, path, body) as answer:
            return json.load(answer)


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[Server]:
    kubeconfig = directory / "kubeconfig"
    command = [sys.executable, "-m", "tools.benches.api_process", str(kubeconfig)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield Server(kubeconfig, server.stdout.readline().strip())
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


@contextlib.contextmanager
def real(kubeconfig: Path, directory: Path) -> Iterator[Server]:
    """With the first cluster and user of a kubeconfig that has its certificates inside, as tools/cluster writes it."""
    document = json.loads(kubeconfig.read_bytes())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    pair = directory / "client.pem"
    pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    context.load_cert_chain(pair)
    yield Server(kubeconfig, cluster["server"], context)
