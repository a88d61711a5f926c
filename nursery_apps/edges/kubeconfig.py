"""Credentials of a kubeconfig file: for people, tests and clusters whose API server is not asked through a ServiceAccount.

Kubeconfigs have a long tail (exec plugins, auth providers, merged files, proxies), for which there is the official client: it runs in
a short child process (`python -m nursery_apps.edges.kubeconfig PATH [CONTEXT]`), because importing it costs 20 MB and 0.4 s. A file that
holds nothing but plain data (server, certificates, keys, tokens or the files they are in) is read right here, so that start is not
held up by a child.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from nursery_apps.credentials import Identity, Transport
from nursery_apps.seams import Unavailable

CHILD_DEADLINE_SECONDS: Final = 25.0
"""Inside one call's 30 s; a plugin that waits for a person to log in is not for a daemon."""
BEFORE_EXPIRY_SECONDS: Final = 300.0
"""So long before they run out credentials are made anew; the official client takes five minutes too."""
READ_AGAIN_SECONDS: Final = 60.0
"""As in a pod."""

_CLUSTER: Final = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "extensions",
}
_USER: Final = {"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile", "extensions"}


def default_path(environ: Mapping[str, str]) -> str:
    """What kubectl would read: $KUBECONFIG, which may name several files, else ~/.kube/config."""
    return environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "/"), ".kube", "config"))


class Resolved(msgspec.Struct, frozen=True):
    """What a kubeconfig comes to."""

    transport: Transport
    authorization: str | None = None
    expires: float | None = None
    """Seconds since the epoch."""
    files: tuple[str, ...] = ()
    """Read on the way; a change in any of them makes this stale."""


class KubeconfigCredentials:
    """Resolved anew when a file changes, once a minute where no child is needed, near expiry and after a 401."""

    def __init__(self, path: str, context: str | None = None) -> None:
        self._path = path
        self._context = context
        self._resolved: Resolved | None = None
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._resolved_at = 0.0
        self._one_at_a_time = trio.Lock()

    async def identity(self) -> Identity:
        async with self._one_at_a_time:
            if self._resolved is None or self._is_stale(self._resolved):
                resolved = plain(self._path, self._context) or await _ask_child(self._path, self._context)
                self._stamps = {file: _stamp(file) for file in resolved.files}
                self._resolved, self._resolved_at = resolved, trio.current_time()
            return Identity(self._resolved.transport, self._resolved.authorization)

    def refused(self) -> None:
        self._resolved = None

    def _is_stale(self, resolved: Resolved) -> bool:
        if resolved.expires is not None and time.time() > resolved.expires - BEFORE_EXPIRY_SECONDS:
            # A plugin that gives out nothing fresher is asked once a minute, not before each request.
            return trio.current_time() - self._resolved_at >= READ_AGAIN_SECONDS
        return any(_stamp(file) != stamp for file, stamp in self._stamps.items())


def plain(path: str, context: str | None) -> Resolved | None:
    """Read a single kubeconfig that is nothing but data; None if it needs the official client.

    Raises:
        Unavailable: it is damaged, or refers to what does not exist.
    """
    if os.pathsep in path:
        return None
    file = Path(path).expanduser()
    try:
        document: Any = msgspec.yaml.decode(file.read_bytes())
        chosen = _named(document, "contexts", context or document["current-context"])["context"]
        cluster = _named(document, "clusters", chosen["cluster"])["cluster"]
        user = _named(document, "users", chosen["user"])["user"] or {} if chosen.get("user") else {}
        if set(cluster) - _CLUSTER or set(user) - _USER:
            return None
        files = [str(file)]

        def text(holder: Any, data_key: str, file_key: str) -> str | None:
            if holder.get(data_key):
                return base64.b64decode(holder[data_key]).decode()
            return read(holder.get(file_key))

        def read(name: str | None) -> str | None:
            if not name:
                return None
            files.append(str(file.parent / name))
            return Path(files[-1]).read_text()

        token = user.get("token") or (read(user.get("tokenFile")) or "").strip()
        transport = Transport(
            server=cluster["server"],
            ca_pem=text(cluster, "certificate-authority-data", "certificate-authority"),
            cert_pem=text(user, "client-certificate-data", "client-certificate"),
            key_pem=text(user, "client-key-data", "client-key"),
            server_name=cluster.get("tls-server-name"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise Unavailable(0, "NoCredentials", f"cannot use kubeconfig {path}: {type(error).__name__}: {error}") from error
    return Resolved(transport, f"Bearer {token}" if token else None, files=tuple(files))


def _named(document: Any, kind: str, name: str) -> Any:
    for one in document.get(kind) or []:
        if one.get("name") == name:
            return one
    raise ValueError(f"no {kind[:-1]} named {name!r}")


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


async def _ask_child(path: str, context: str | None) -> Resolved:
    """Run this module as a program, and read what it prints."""
    command = [sys.executable, "-m", "nursery_apps.edges.kubeconfig", path, *([context] if context else [])]
    try:
        with trio.fail_after(CHILD_DEADLINE_SECONDS):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise Unavailable(0, "NoCredentials", f"cannot use kubeconfig {path}: {complaint[-1]}")
        return msgspec.json.decode(done.stdout, type=Resolved)
    except trio.TooSlowError as error:
        text = f"kubeconfig {path} gave no credentials within {CHILD_DEADLINE_SECONDS:.0f} s; does its exec plugin wait for somebody?"
        raise Unavailable(0, "NoCredentials", text) from error
    except (OSError, msgspec.DecodeError) as error:
        raise Unavailable(0, "NoCredentials", f"cannot resolve kubeconfig {path}: {error}") from error


def main(path: str, context: str | None = None) -> Resolved:
    """The child's part: let the official client resolve the file. It writes keys into files, which are gone when this returns."""
    import tempfile  # noqa: PLC0415 - what follows is paid for by the child alone

    from kubernetes import client  # noqa: PLC0415
    from kubernetes.config import kube_config  # noqa: PLC0415

    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a private directory inside
    with tempfile.TemporaryDirectory(dir=in_memory) as directory:
        merged = kube_config.KubeConfigMerger(path)  # type: ignore[no-untyped-call]
        if merged.config is None:
            raise SystemExit(f"there is no kubeconfig at {path}")
        loader = kube_config.KubeConfigLoader(  # type: ignore[no-untyped-call]
            merged.config, active_context=context, config_base_path=None, temp_file_path=directory
        )
        found = client.Configuration()
        loader.load_and_set(found)  # type: ignore[no-untyped-call]

        def read(name: str | None) -> str | None:
            return Path(name).read_text() if name else None

        authorization = found.get_api_key_with_prefix("BearerToken") or found.get_api_key_with_prefix("authorization")
        # The client only logs when an exec plugin fails.
        user = merged.config.value["users"] and loader.__dict__.get("_user")
        if user is not None and "exec" in user and not authorization and not found.cert_file:
            raise SystemExit("its exec plugin gave no credentials")
        expiry = getattr(loader, "expiry", None)
        return Resolved(
            Transport(
                server=found.host,
                ca_pem=read(found.ssl_ca_cert),
                cert_pem=read(found.cert_file),
                key_pem=read(found.key_file),
                server_name=found.tls_server_name,
                insecure=not found.verify_ssl,
                proxy=found.proxy,
            ),
            authorization,
            expires=expiry.timestamp() if expiry is not None else None,
            files=tuple(merged.paths),
        )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(*sys.argv[1:3])))
