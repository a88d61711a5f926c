"""gRPC as the rest of the program sees it: routes, calls, a listener and a caller, whatever library carries them."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec
import trio

Asked = TypeVar("Asked")
Told = TypeVar("Told")

LONGEST_SOCKET_PATH_BYTES: Final = 107
"""`sun_path` holds 108 bytes, the last of them NUL (unix(7))."""


class Status(enum.IntEnum):
    """All that gRPC has: a peer may answer with any."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """Ends a call with a status other than OK; `message` is sent to the caller, or was by the peer."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


class Call(msgspec.Struct, frozen=True):
    """What is known of one call besides its message."""

    path: str
    """`/package.Service/Method`."""
    deadline: float
    """On Trio's clock; infinity if the caller set none. The call is cancelled when it passes."""
    metadata: Mapping[str, str | bytes]
    """The caller's custom headers, of repeated ones the first; names that end in `-bin` have bytes."""

    def seconds_left(self) -> float:
        """Until the deadline, never negative."""
        return max(0.0, self.deadline - trio.current_time())

    def has_deadline(self) -> bool:
        return self.deadline != math.inf


class Unary(msgspec.Struct, Generic[Asked, Told], frozen=True):
    """A method with one message each way. `call` runs in a cancel scope of its own: the deadline, the peer's cancel or hang-up and the end
    of the server's grace cancel it; awaits in its `finally` need a shield with a deadline, as anywhere."""

    path: str
    decode: Callable[[bytes], Asked]
    """Whatever it raises ends the call with INTERNAL."""
    encode: Callable[[Told], bytes]
    call: Callable[[Asked, Call], Awaitable[Told]]


class ServerStream(msgspec.Struct, Generic[Asked, Told], frozen=True):
    """A method that answers one message with many: `call` awaits its third argument with each. Returning ends the stream with OK.

    Sending waits while the caller has not read what was sent before, so who sends values sends the newest when it returns. A stream may
    have no end of its own: when the server stops it is ended at once, without grace."""

    path: str
    decode: Callable[[bytes], Asked]
    encode: Callable[[Told], bytes]
    call: Callable[[Asked, Call, Callable[[Told], Awaitable[None]]], Awaitable[None]]


Route: TypeAlias = Unary[Any, Any] | ServerStream[Any, Any]


class Listening(Protocol):
    """A socket that is being served."""

    @property
    def path(self) -> str: ...

    def reachable(self) -> bool:
        """Whether the name in the file system still leads to this socket: not removed, not replaced."""


class RpcListener(Protocol):
    """Serves routes on Unix sockets. One listener may serve any number of sockets at once."""

    async def serve_unix(
        self,
        routes: Collection[Route],
        path: str,
        *,
        mode: int = 0o600,
        take_over: bool = False,
        task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `started` as soon as a caller can connect.

        A socket file that nobody accepts on (its process died) is replaced. One that somebody serves is replaced with `take_over`: its
        server keeps its connections and gets no new ones.

        When cancelled: the file is removed at once if it is still ours, callers are told to go elsewhere, streams end with UNAVAILABLE,
        other calls in flight get the grace and then end with it too, the connections are closed.

        Raises:
            ValueError: the path is longer than `LONGEST_SOCKET_PATH_BYTES`.
            OSError: the path cannot be bound; EADDRINUSE when somebody else serves it, EEXIST when it is no socket.
        """

    def remove_dead(self, directory: str, is_candidate: Callable[[str], bool]) -> list[str]:
        """Unlink the sockets in `directory` (file names that `is_candidate` accepts) that nobody accepts on; returns their names.

        Raises:
            OSError: the directory cannot be listed (a missing one is fine) or a dead socket not be removed.
        """


class Answers(Protocol):
    """What comes back of a call that is answered with a stream."""

    async def receive(self) -> bytes | None:
        """The next message; None when the peer has ended the stream with OK.

        Raises:
            RpcError: the call has ended otherwise, and nothing more comes. UNAVAILABLE also when the connection is lost or the peer asks to
                go elsewhere, INTERNAL when what comes is no gRPC, RESOURCE_EXHAUSTED when a message is larger than is taken.
        """


class RpcCaller(Protocol):
    """Makes calls on Unix sockets, each on a connection of its own."""

    def stream_unix(self, path: str, method: str, message: bytes) -> AbstractAsyncContextManager[Answers]:
        """Ask `method` (`/package.Service/Method`) with one message, to be answered with many.

        Leaving the context closes the connection, whatever the reason, and the peer's call is cancelled by it. There is no deadline but the
        caller's: connecting, sending and receiving may all wait for a peer that does not read.

        Raises:
            ValueError: the message is longer than a request may be.
            OSError: nobody can be connected to: nothing is there, nobody accepts, no right.
        """
