"""Certificates and kubeconfigs of one cluster."""

from __future__ import annotations

import base64
import json
import pathlib

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tools.realcluster.site import API_PORT, NODE_IP, NODE_NAME, SERVICE_IP

USERS = {
    "admin": "system:masters",
    "apiserver-kubelet": "system:masters",
    "system:kube-controller-manager": None,
    "system:kube-scheduler": None,
    f"system:node:{NODE_NAME}": "system:nodes",
}
"""Name -> group, as the API server reads them from a client certificate."""


def file_name(user: str) -> str:
    """`system:node:node1` -> `node`, `system:kube-scheduler` -> `kube-scheduler`."""
    return "node" if user.startswith("system:node:") else user.removeprefix("system:")


def make(directory: pathlib.Path) -> None:
    """Authority, server certificates, one client certificate and kubeconfig a user, the key that signs service account tokens."""
    directory.mkdir(parents=True)
    authority = trustme.CA(organization_name="cluster")
    authority.cert_pem.write_to_path(directory / "ca.crt")
    names = [NODE_IP, SERVICE_IP, "127.0.0.1", "localhost", NODE_NAME, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    _write(directory, "server", authority.issue_cert(*names))
    for user, group in USERS.items():
        # With a host name that nobody uses: without one, trustme writes an empty critical extension, which Go refuses.
        _write(directory, file_name(user), authority.issue_cert(f"{file_name(user)}.client", common_name=user, organization_name=group))
        write_kubeconfig(directory, file_name(user))
    front = trustme.CA(organization_name="front-proxy")
    front.cert_pem.write_to_path(directory / "front.crt")
    _write(directory, "front-proxy-client", front.issue_cert("front-proxy.client", common_name="front-proxy-client"))
    make_token_key(directory)


def make_token_key(directory: pathlib.Path) -> None:
    """What signs service account tokens, in place of one that may be there."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    (directory / "sa.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (directory / "sa.pub").write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))


def _write(directory: pathlib.Path, name: str, made: trustme.LeafCert) -> None:
    made.private_key_pem.write_to_path(directory / f"{name}.key")
    (directory / f"{name}.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))


def write_kubeconfig(directory: pathlib.Path, name: str) -> None:
    def data(file: str) -> str:
        return base64.b64encode((directory / file).read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "cluster",
        "clusters": [
            {"name": "cluster", "cluster": {"server": f"https://{NODE_IP}:{API_PORT}", "certificate-authority-data": data("ca.crt")}}
        ],
        "users": [{"name": name, "user": {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
    }
    (directory / f"{name}.kubeconfig").write_text(json.dumps(document))
