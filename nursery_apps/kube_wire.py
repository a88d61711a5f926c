"""The API server's envelopes, paths and refusals: what is on the wire around the objects themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from nursery_apps.seams import ApiError, Conflict, Forbidden, Gone, Invalid, NotFound, Resource, Throttled, Unavailable

T = TypeVar("T")

LINE_BYTES: Final = 16 << 20
"""etcd holds objects up to 1.5 MB; their JSON is a few times as long at most."""


class Lines:
    """Cuts a stream of chunks into lines, whatever the chunks' borders."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._carried = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that ended in this chunk, empty ones left out.

        Raises:
            Unavailable: a line is longer than any object can be.
        """
        *ended, rest = chunk.split(b"\n")
        if ended:
            ended[0] = b"".join([*self._parts, ended[0]])
            self._parts, self._carried = [], 0
        if rest:
            self._parts.append(rest)
            self._carried += len(rest)
        if self._carried > LINE_BYTES:
            raise Unavailable(0, "TooLong", f"an event of more than {LINE_BYTES >> 20} MiB")
        return [line for line in ended if line.strip()]


class Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    # Go calls the token of the next page `continue`.
    next_page: str = msgspec.field(name="continue", default="")


class Versioned(msgspec.Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)


class Page(msgspec.Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct):
    # BOOKMARK objects lack fields a typed kind requires and ERROR carries a Status: what is inside is decoded when the type is known.
    type: str
    object: msgspec.Raw


class Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float | None = None


class Status(msgspec.Struct, rename="camel"):
    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: Details | None = None


class Version(msgspec.Struct, rename="camel"):
    git_version: str = ""


class GroupVersion(msgspec.Struct):
    version: str


class Group(msgspec.Struct):
    versions: list[GroupVersion] | None = None


class Served(msgspec.Struct):
    name: str


class ServedList(msgspec.Struct):
    resources: list[Served] | None = None


def path(what: Resource[Any], namespace: str, name: str = "") -> str:
    root = f"/api/{what.group_version}" if "/" not in what.group_version else f"/apis/{what.group_version}"
    inside = f"/namespaces/{quote(namespace, safe='')}" if what.namespaced and namespace else ""
    return f"{root}{inside}/{what.plural}" + (f"/{quote(name, safe='')}" if name else "")


def decode(data: bytes | bytearray | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(0, "Undecodable", f"the answer is not what an API server says: {error}") from error


def status_of(answer: bytes) -> Status:
    """The Status in an error's body; what stands between (a proxy, a load balancer) answers in its own words."""
    try:
        return msgspec.json.decode(answer, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status(message=answer[:200].decode(errors="replace").strip())


def refusal(status: int, said: Status, headers: Iterable[tuple[bytes, bytes]] = ()) -> ApiError:
    """The error that stands for an HTTP status and the Status object that came with it."""
    retry_after = next((value.decode("ascii", "replace") for key, value in headers if key.lower() == b"retry-after"), None)
    wait = float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
    if wait is None and said.details is not None:
        wait = said.details.retry_after_seconds
    kind: type[ApiError]
    match status:
        case 400 | 405 | 406 | 413 | 415 | 422:
            kind = Invalid
        case 401 | 403:
            kind = Forbidden
        case 404:
            kind = NotFound
        case 409:
            kind = Conflict
        case 410:
            kind = Gone
        case 429:
            kind = Throttled
        case _:
            kind = Gone if said.reason in ("Expired", "Gone") else Unavailable
    return kind(status, said.reason or f"HTTP{status}", said.message or "no message", retry_after_seconds=wait)
