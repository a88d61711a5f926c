"""TLS contexts from certificates that are only in memory."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

import msgspec

from dra import certificate_end
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


def served_with(cert_pem: str, key_pem: str) -> ssl.SSLContext:
    """What to serve with: a certificate, its chain and its key.

    Raises:
        ssl.SSLError, ValueError: one is not what it should be, or they do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with _in_memory(cert_pem) as cert, _in_memory(key_pem) as key:
        context.load_cert_chain(cert, key, password="")  # without one OpenSSL would ask the terminal for that of an encrypted key
    return context


class Certificate(msgspec.Struct, frozen=True):
    """What is served with."""

    context: ssl.SSLContext
    ends: float
    """Seconds since the epoch."""


def certificate(cert_pem: str, key_pem: str) -> Certificate:
    """`served_with`, and until when.

    Raises:
        ssl.SSLError, ValueError: as `served_with`, or the end cannot be read.
    """
    context = served_with(cert_pem, key_pem)
    return Certificate(context, certificate_end.of_pem(cert_pem))


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
