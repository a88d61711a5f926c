"""Credentials of a pod: two environment variables and the files of its ServiceAccount."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from nursery_apps.credentials import Identity, Transport
from nursery_apps.seams import Unavailable

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
READ_AGAIN_SECONDS: Final = 60.0
"""The kubelet renews a token when a fifth of its life (an hour) is left; client-go reads it once a minute too."""


def available(environ: Mapping[str, str]) -> bool:
    """Whether this process runs in a pod that may talk to its API server."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST")) and bool(environ.get("KUBERNETES_SERVICE_PORT"))


class InClusterCredentials:
    """The token is read again when its file changes, once a minute and after a 401; the CA with it, because that is rotated too."""

    def __init__(self, environ: Mapping[str, str], *, directory: str = SERVICE_ACCOUNT) -> None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token = Path(directory, "token")
        self._ca = Path(directory, "ca.crt")
        self._identity: Identity | None = None
        self._stamp: tuple[int, int] | None = None
        self._read_at = 0.0

    async def identity(self) -> Identity:
        # The files lie in memory (tmpfs), so looking at them costs microseconds and no thread.
        await trio.lowlevel.checkpoint()
        try:
            found = self._token.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            now = trio.current_time()
            if self._identity is None or stamp != self._stamp or now - self._read_at >= READ_AGAIN_SECONDS:
                # The kubelet ends its files in no newline, but whoever mounts another token may.
                token, ca = self._token.read_text().strip(), self._ca.read_text()
                self._identity = Identity(Transport(self._server, ca_pem=ca), f"Bearer {token}")
                self._stamp, self._read_at = stamp, now
        except (OSError, UnicodeDecodeError) as error:
            text = f"cannot read the ServiceAccount of this pod: {error}; is automountServiceAccountToken off?"
            raise Unavailable(0, "NoCredentials", text) from error
        return self._identity

    def refused(self) -> None:
        self._stamp = None
