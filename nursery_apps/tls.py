"""TLS contexts from certificates that are only in memory."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

from nursery_apps.credentials import Transport


def context_of(transport: Transport) -> ssl.SSLContext:
    """What to verify the server with, and what to show it.

    Raises:
        ssl.SSLError, ValueError: a certificate or key is not one.
    """
    context = ssl.create_default_context(cadata=transport.ca_pem) if transport.ca_pem else ssl.create_default_context()
    if transport.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if transport.cert_pem and transport.key_pem:
        # OpenSSL wants files; these exist only in memory and only until the end of this block.
        with _in_memory(transport.cert_pem) as cert, _in_memory(transport.key_pem) as key:
            context.load_cert_chain(cert, key)
    return context


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
