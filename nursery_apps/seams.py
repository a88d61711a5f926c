"""The asynchronous seams: what the tasks expect of the world, with the promises every implementation keeps.

Each has a contract suite in `tests/contracts` that runs over the real edge and over the double.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import trio

T = TypeVar("T")


# --- device events -------------------------------------------------------------------------------------------------------------------


class DeviceEvent(msgspec.Struct, frozen=True):
    """One uevent. It only wakes: whoever receives it reads the tree again."""

    action: str
    """add, remove, change, bind, unbind, move, online, offline."""
    subsystem: str
    sys_path: str
    """Path below /sys, starting with `/devices/`."""
    properties: dict[str, str]


class Resync(msgspec.Struct, frozen=True):
    """Events were lost (the kernel's buffer or ours was full): read everything again."""

    why: str


class DeviceEvents(Protocol):
    """Where uevents of the pci and drm subsystems come from."""

    async def listen(
        self, send: trio.MemorySendChannel[DeviceEvent | Resync], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run until cancelled.

        Calls `task_status.started()` when subscribed, so a scan made after it misses nothing. A full channel never blocks the
        kernel's queue: what does not fit is dropped and one `Resync` follows as soon as there is room. Closes `send` on the way out.

        Raises:
            OSError: the source cannot be opened or broke for good.
        """


# --- the Kubernetes API --------------------------------------------------------------------------------------------------------------


class ApiError(Exception):
    """The API server, or the way to it, refused. `reason` is the Status reason or one of ours."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{reason} ({status}): {message}" if status else f"{reason}: {message}")
        self.status, self.reason, self.message, self.retry_after_seconds = status, reason, message, retry_after_seconds


class NotFound(ApiError):
    """404. Also what a version that is not served answers."""


class Conflict(ApiError):
    """409: somebody else wrote first (reason Conflict) or the name is taken (reason AlreadyExists)."""


class Gone(ApiError):
    """410: the resourceVersion is too old; list again."""


class Forbidden(ApiError):
    """403, and 401 after the credentials were read again: an administrator has to act."""


class Invalid(ApiError):
    """400 or 422: the object is refused as it stands; sending it again changes nothing."""


class Throttled(ApiError):
    """429: ask again after `retry_after_seconds`."""


class Unavailable(ApiError):
    """No usable answer: connection refused or lost, time-out, 5xx. Nothing is known of whether a write happened."""


class Resource(msgspec.Struct, Generic[T], frozen=True):
    """A kind at one version, and the type its objects are decoded into (`dict` for those we write)."""

    group_version: str
    """`v1` for the core group, else `group/version`."""
    plural: str
    type: Any
    namespaced: bool = False


class Listing(msgspec.Struct, Generic[T]):
    items: list[T]
    resource_version: str


class Watched(msgspec.Struct, Generic[T]):
    """One watch event; `object` is None for a BOOKMARK."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: T | None
    resource_version: str


class ServedApi(msgspec.Struct, frozen=True):
    """What the server offers of `resource.k8s.io`."""

    server_version: str
    """gitVersion, `v1.34.3`."""
    resources: tuple[tuple[str, tuple[str, ...]], ...]
    """(version, plurals) in the server's order, e.g. (("v1", ("deviceclasses", "resourceslices", ...)),)."""


class KubeApi(Protocol):
    """The few verbs we use. Every call has a deadline of its own (30 s; a watch is ended by the server and has an idle deadline) and
    raises one of the ApiErrors above; nothing else but Cancelled escapes. Objects of a kind with `type=dict` come as plain JSON."""

    async def served(self) -> ServedApi:
        """Ask discovery, never a cache."""

    async def get(self, what: Resource[T], name: str, *, namespace: str = "") -> T:
        """A consistent read of one object."""

    async def list(self, what: Resource[T], *, namespace: str = "", field_selector: str = "", label_selector: str = "") -> Listing[T]:
        """A consistent read of all (never resourceVersion=0), in pages of 500."""

    def watch(
        self, what: Resource[T], *, namespace: str = "", field_selector: str = "", resource_version: str
    ) -> AsyncGenerator[Watched[T], None]:
        """Changes after `resource_version`, bookmarks included, until the server ends the stream (the iterator then just ends).

        Raises `Gone` for 410, be it the HTTP status or an ERROR event. Use it inside `contextlib.aclosing`.
        """

    async def create(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "", dry_run: bool = False) -> T:
        """POST; the returned object is what the server stored (or, with `dry_run`, would store)."""

    async def replace(self, what: Resource[T], body: dict[str, Any], *, namespace: str = "") -> T:
        """PUT by `metadata.name` with `metadata.resourceVersion` as precondition. Only for kinds decoded as dict."""

    async def patch(
        self, what: Resource[T], name: str, body: object, *, content_type: str, namespace: str = "", subresource: str = ""
    ) -> T:
        """PATCH with `application/merge-patch+json`, `application/json-patch+json` or `application/apply-patch+yaml`."""

    async def delete(self, what: Resource[T], name: str, *, namespace: str = "", uid: str = "", resource_version: str = "") -> None:
        """DELETE with preconditions where given."""


# --- durable state -------------------------------------------------------------------------------------------------------------------


class StateDir(Protocol):
    """One directory of small files. Synchronous and blocking: call it from a worker thread, one caller at a time.

    Every failure is an OSError that names the file. Names are plain file names; temporary names start with a dot and never end in
    the target's extension, so no reader (a container runtime, an administrator's glob) takes one for the real thing.
    """

    def read(self, name: str) -> bytes | None:
        """The content, or None if there is no such file."""

    def stamp(self, name: str) -> tuple[int, int] | None:
        """(inode, size): equal stamps of an append-only file mean nobody else wrote. None if there is no such file."""

    def replace(self, name: str, data: bytes, *, mode: int = 0o600, keep: str | None = None) -> None:
        """Atomically make `data` the content: after it returns, the bytes survive a power cut; before, the old ones do.

        With `keep`, the old content stays readable under that name.
        """

    def append(self, name: str, data: bytes) -> None:
        """Add `data` at the end; after it returns the bytes survive a power cut. A cut during it may leave any prefix of them."""

    def remove(self, name: str) -> None:
        """Durably remove; a missing file is fine."""

    def list(self) -> list[str]:
        """Names of the regular files, sorted, temporary ones left out."""

    def locked(self) -> AbstractContextManager[object]:
        """Context manager: the advisory lock of the directory (flock), shared with another instance of the plugin in a rolling update."""


class RunBlocking(Protocol):
    """Runs blocking work away from the event loop: a worker thread in production, in place where virtual time must not run ahead of it.

    The work is never abandoned: a caller that is cancelled gets `Cancelled` only after it has ended.
    """

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Hung(Exception):
    """The kernel had not come back when the deadline passed. `back` is set when it has."""

    def __init__(self, seconds: float, back: trio.Event) -> None:
        super().__init__(f"no answer from the kernel for {seconds:g} s")
        self.seconds, self.back = seconds, back


class KernelCall(Protocol):
    def __call__(self, work: Callable[[], T], /, *, seconds: float) -> Awaitable[T]:
        """Do blocking work in the kernel.

        Raises:
            Hung: it takes longer than `seconds`; it goes on in its thread.
        """


Clock = Callable[[], float]
"""Seconds since the epoch."""
