"""When a certificate ends, read from its bytes: Python's ssl tells it only of certificates that a peer has shown and that are valid.

Sources: RFC 5280 section 4.1 (the first fields of a certificate), RFC 7468 (PEM), X.690 (DER).
"""

from __future__ import annotations

import base64
import datetime
import re
from typing import Final

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_CENTURY: Final = 50
"""UTCTime has two digits for the year: from here on they mean 19xx (RFC 5280 4.1.2.5.1)."""


def of_pem(text: str) -> float:
    """Seconds since the epoch, of the first certificate in the text: a server's own comes before its chain.

    Raises:
        ValueError: there is none, or it is not understood.
    """
    found = _BLOCK.search(text)
    if found is None:
        raise ValueError("no certificate in it")
    try:
        return _of_der(base64.b64decode(found.group(1)))
    except (IndexError, ValueError) as error:
        raise ValueError(f"the certificate's end cannot be read: {error}") from None


def _of_der(data: bytes) -> float:
    certificate = _content(data, 0, _SEQUENCE)[0]
    to_be_signed = _content(certificate, 0, _SEQUENCE)[0]
    at = 0
    if to_be_signed[0] == _VERSION:
        at = _content(to_be_signed, at, _VERSION)[1]
    for _ in ("serial number", "signature", "issuer"):
        at = _content(to_be_signed, at, to_be_signed[at])[1]
    validity = _content(to_be_signed, at, _SEQUENCE)[0]
    at = _content(validity, 0, validity[0])[1]
    return _seconds(validity[at], _content(validity, at, validity[at])[0].decode("ascii"))


def _content(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """Of the element that begins at `at`, and where the next one does."""
    if data[at] != tag:
        raise ValueError(f"tag {data[at]:#x} where {tag:#x} belongs")
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[at + 2 : begin])
    if begin + length > len(data):
        raise ValueError("it is cut short")
    return data[begin : begin + length], begin + length


def _seconds(tag: int, text: str) -> float:
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _CENTURY else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#x} is no time")
    at = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    return at.timestamp()
