"""When a certificate ends, against those that a library makes."""

from __future__ import annotations

import base64
import datetime

import pytest
import trustme

from dra import certificate_end


def pem(year: int) -> str:
    ends = datetime.datetime(year, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    return trustme.CA().issue_cert("example.org", not_after=ends).cert_chain_pems[0].bytes().decode()


@pytest.mark.parametrize("year", [2049, 2050, 2126])  # from 2050 on the time is written in another form
def test_the_end_is_read(year: int) -> None:
    assert certificate_end.of_pem(pem(year)) == datetime.datetime(year, 5, 6, 7, 8, 9, tzinfo=datetime.UTC).timestamp()


def test_of_a_chain_the_first_counts() -> None:
    chain = "a comment\n" + pem(2031) + pem(2040)
    assert certificate_end.of_pem(chain) == datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize("text", ["", "secret", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="certificate"):
        certificate_end.of_pem(text)


def test_a_certificate_that_is_cut_short_anywhere_is_refused() -> None:
    body = base64.b64decode("".join(pem(2031).splitlines()[1:-1]))
    for length in range(0, len(body) - 1, 7):
        cut = base64.b64encode(body[:length]).decode()
        with pytest.raises(ValueError, match="certificate"):
            certificate_end.of_pem(f"-----BEGIN CERTIFICATE-----\n{cut}\n-----END CERTIFICATE-----")
