"""A certificate that cert-manager renews, in files that the kubelet swaps."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpcore
import pytest
import trio
import trustme

from nursery_apps import tls
from nursery_apps.edges.file_watch import InotifyWatch
from nursery_apps.edges.text_files import TextFiles
from nursery_apps.fresh import Fresh
from nursery_apps.http_service import Answer, HttpService, Limits, Request
from tests.fakes.kube_api import until


class Volume:
    """A Secret volume as the kubelet keeps it: files are links through `..data`, which is swapped by one rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0

    def swap(self, **files: str) -> None:
        self._generation += 1
        fresh = self.path / f"..{self._generation}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name.replace("_", ".")).write_text(text)
            if not (link := self.path / name.replace("_", ".")).is_symlink():
                link.symlink_to(f"..data/{name.replace('_', '.')}")
        (self.path / "..tmp").symlink_to(fresh.name)
        os.rename(self.path / "..tmp", self.path / "..data")

    def certificate(self) -> Fresh[ssl.SSLContext]:
        files = TextFiles(str(self.path / "tls.crt"), str(self.path / "tls.key"), watch=InotifyWatch().file)
        return Fresh(
            files,
            lambda texts: tls.served_with(*texts),
            name="the certificate",
            run_blocking=trio.to_thread.run_sync,
            random=lambda: 0.5,
        )


def issue(authority: trustme.CA) -> dict[str, str]:
    made = authority.issue_cert("localhost")
    return {
        "tls_crt": b"".join(pem.bytes() for pem in made.cert_chain_pems).decode(),
        "tls_key": made.private_key_pem.bytes().decode(),
    }


class Hello:
    def refusal(self, request: Request) -> Answer | None:
        return None

    async def respond(self, request: Request) -> Answer:
        return Answer(200, b"hello")


async def test_a_renewed_certificate_is_served_at_once_and_a_bad_one_never(tmp_path: Path, nursery: trio.Nursery) -> None:
    volume, first, second = Volume(tmp_path), trustme.CA(), trustme.CA()
    volume.swap(**issue(first))
    certificate = volume.certificate()
    await nursery.start(certificate.run)
    limits = Limits(body_bytes=1000, request_seconds=5, answer_seconds=5, connections=4)
    port = await nursery.start(
        HttpService(Hello(), name="hello", limits=limits, certificate=lambda: certificate.value).serve, "127.0.0.1", 0
    )

    async def trusts(authority: trustme.CA) -> bool:
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        try:
            async with httpcore.AsyncConnectionPool(ssl_context=context) as pool:
                return (await pool.request("GET", f"https://localhost:{port}/")).status == 200
        except httpcore.ConnectError:
            return False

    assert await trusts(first) and certificate.why is None
    before = certificate.value
    volume.swap(**issue(second) | {"tls_key": issue(second)["tls_key"]})
    await until(lambda: certificate.why is not None, seconds=5)
    assert certificate.value is before and "cannot be used" in str(certificate.why)
    assert await trusts(first)
    volume.swap(**issue(second))
    await until(lambda: certificate.value is not before, seconds=5)
    assert await trusts(second) and not await trusts(first) and certificate.why is None


async def test_files_that_come_later(tmp_path: Path, nursery: trio.Nursery) -> None:
    volume = Volume(tmp_path)
    certificate = volume.certificate()
    await nursery.start(certificate.run)
    assert certificate.value is None and "No such file" in str(certificate.why)
    volume.swap(**issue(trustme.CA()))
    await until(lambda: certificate.value is not None, seconds=5)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * (2 << 20)])
async def test_a_file_that_is_no_text_or_endless(tmp_path: Path, nursery: trio.Nursery, data: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(data)
    token = Fresh(
        TextFiles(str(path), watch=InotifyWatch().file),
        lambda texts: texts[0].strip(),
        name="the token",
        run_blocking=trio.to_thread.run_sync,
        random=lambda: 0.5,
    )
    await nursery.start(token.run)
    assert token.value is None and token.why is not None
    path.write_text("secret\n")
    await until(lambda: token.value == "secret", seconds=5)
