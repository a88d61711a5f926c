"""The API server as a task: hypercorn on a loopback port."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import hypercorn.trio
import trio
import trustme
from hypercorn.config import Config
from hypercorn.logging import Logger
from starlette.types import ASGIApp

IDLE_SECONDS: Final = 90.0
"""As long as Go's server keeps a connection without requests."""


class Certificates:
    """A throw-away authority and the server's certificate from it."""

    def __init__(self, directory: str) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc")
        self.authority_pem: bytes = authority.cert_pem.bytes()
        self.authority = f"{directory}/ca.crt"
        self.certificate, self.key = f"{directory}/apiserver.crt", f"{directory}/apiserver.key"
        authority.cert_pem.write_to_path(self.authority)
        server.private_key_pem.write_to_path(self.key)
        for index, pem in enumerate(server.cert_chain_pems):
            pem.write_to_path(self.certificate, append=index > 0)


class _Quiet(Logger):
    """Hypercorn would print a traceback for every connection that a fault broke on purpose."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            await super().exception(message, *args, **kwargs)

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Where it runs is the caller's to say."""


async def serve(
    application: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificates: Certificates | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled; `started` with the address, `http://127.0.0.1:40123`."""
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"
    config.logger_class = _Quiet
    config.keep_alive_timeout = IDLE_SECONDS
    config.graceful_timeout = 0
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    if certificates is not None:
        config.certfile, config.keyfile = certificates.certificate, certificates.key

    def run(task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> Any:
        return hypercorn.trio.serve(application, config, task_status=task_status, mode="asgi")  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(run))
        task_status.started(address)
