"""An API server that serves one `exec` over a websocket (RFC 6455), as far as `kubectl intel-gpu plan` needs it, in a thread of its own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
STDOUT, STDERR, ERROR = 1, 2, 3


class ExecServer:
    """What it was asked is in `asked`; `address` is for a kubeconfig."""

    def __init__(self, *, frames: tuple[tuple[int, str], ...] = (), refusal: tuple[int, str] | None = None, silent: bool = False) -> None:
        """
        Args:
            frames: (channel, text), after which the connection is closed.
            refusal: (status, message) in place of a websocket.
            silent: takes the connection and says nothing.
        """
        self._frames, self._refusal, self._silent = frames, refusal, silent
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: dict[str, list[str]] = {}
        self.path = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[ExecServer]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            thread.join()

    def _serve(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            target = urlsplit(head.split(b" ")[1].decode())
            self.path, self.asked = target.path, parse_qs(target.query)
            if self._silent:
                with contextlib.suppress(OSError):
                    self._socket.accept()  # until the test is over
            elif self._refusal is not None:
                status, message = self._refusal
                body = json.dumps({"kind": "Status", "message": message})
                connection.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            else:
                self._talk(connection, head.decode())

    def _talk(self, connection: socket.socket, head: str) -> None:
        key = re.search(r"(?i)sec-websocket-key: (\S+)", head)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1((key[1] + _MAGIC).encode()).digest()).decode()
        lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
        connection.sendall("\r\n".join((*lines, "Sec-WebSocket-Protocol: v4.channel.k8s.io", "", "")).encode())
        for channel, text in self._frames:
            payload = bytes([channel]) + text.encode()
            assert len(payload) < 126, "longer ones have another header"
            connection.sendall(bytes([0x82, len(payload)]) + payload)
        connection.sendall(bytes([0x88, 0]))


def exited(code: int) -> tuple[int, str]:
    """The last frame of a command that ended."""
    told: dict[str, Any] = {"status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        told = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    return ERROR, json.dumps(told)
