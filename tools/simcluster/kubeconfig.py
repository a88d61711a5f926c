"""A kubeconfig that kubectl, the official clients and our daemons can read."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml


def write(path: str, server: str, authority_pem: bytes | None = None) -> None:
    cluster: dict[str, str] = {"server": server}
    if authority_pem is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority_pem).decode()
    text = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simcluster", "cluster": cluster}],
            # Nobody is asked who they are; a token keeps clients happy that insist on having one.
            "users": [{"name": "simcluster", "user": {"token": "simcluster"}}],
            "contexts": [{"name": "simcluster", "context": {"cluster": "simcluster", "user": "simcluster", "namespace": "default"}}],
            "current-context": "simcluster",
        },
        sort_keys=False,
    )
    Path(path).write_text(text, encoding="utf-8")
