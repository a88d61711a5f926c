"""Where the API server is and who we are to it: the seam between the HTTP edge and whoever finds that out."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Transport(msgspec.Struct, frozen=True):
    """What a connection needs; connections are kept for as long as it stays equal."""

    server: str
    """`https://10.96.0.1:443`, perhaps with a path; `http://` means no TLS at all."""
    ca_pem: str | None = None
    """Certificates to trust; None means the system's."""
    cert_pem: str | None = None
    key_pem: str | None = None
    server_name: str | None = None
    """Name the server's certificate must have, if not the host's."""
    insecure: bool = False
    """Trust whoever answers."""
    proxy: str | None = None

    def __repr__(self) -> str:
        # The key must not reach a log.
        return f"Transport({self.server})"


class Identity(msgspec.Struct, frozen=True):
    """One request's worth of credentials."""

    transport: Transport
    authorization: str | None = None
    """Value of the Authorization header, `Bearer …`."""

    def __repr__(self) -> str:
        return f"Identity({self.transport.server})"


class Credentials(Protocol):
    """A source of them, asked before every request."""

    async def identity(self) -> Identity:
        """What to use now; read anew when it may have changed.

        Raises:
            Unavailable: the files, or the program that makes them, did not give any. Nothing else but Cancelled escapes.
        """

    def refused(self) -> None:
        """The server answered 401: whatever is remembered is to be read anew."""
