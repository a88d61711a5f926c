"""Where the two sockets of a DRA plugin live, how they are called, and which leftovers are its own.

The kubelet finds the registrar socket in `<root>/plugins_registry` under any name, and dials the other one by the literal path it is told.
Plain names are for one instance at a time. With a pod UID in the names two instances can overlap in a rolling update (kubelet 1.33 and
later: earlier ones refuse or confuse a second instance). The forms are those of Kubernetes' own Go helper, except that it allows one
byte too many (kubernetes/kubernetes#141815).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

import msgspec

LONGEST_PATH_BYTES: Final = 107
"""`sun_path` holds 108 bytes, the last of them NUL (unix(7))."""

ORIGINALS_ENDPOINT: Final = "plugin.sock"
"""Of Intel's own driver up to 0.5."""
_PLAIN_ENDPOINT: Final = "dra.sock"
_HASHED_REGISTRAR = re.compile(r"dra-[A-Za-z0-9_-]{22}={0,2}-reg\.sock")


class KubeletSockets(msgspec.Struct, frozen=True):
    """Absolute paths, the same inside and outside of the container."""

    registrar: str
    """Discovered by the kubelet; bound last, removed first."""
    endpoint: str
    """Called by the kubelet."""


def plain(kubelet_root: str, driver: str) -> KubeletSockets:
    """The names of an instance that is alone on its node.

    Raises:
        ValueError: a path is longer than a Unix socket's may be.
    """
    return KubeletSockets(
        _first_that_fits(_registry(kubelet_root), [f"{driver}-reg.sock"]),
        _first_that_fits(_plugin_directory(kubelet_root, driver), [_PLAIN_ENDPOINT]),
    )


def rolling(kubelet_root: str, driver: str, pod_uid: str) -> KubeletSockets:
    """The names of one instance among several, unique for its pod; hashed where the UID does not fit.

    Raises:
        ValueError: even the shortest form of a path is longer than a Unix socket's may be.
    """
    return KubeletSockets(
        _first_that_fits(
            _registry(kubelet_root),
            [
                f"{driver}-{pod_uid}-reg.sock",
                f"{driver}-{_digest(pod_uid, 8)}-reg.sock",
                f"dra-{_digest(driver + chr(0) + pod_uid, 16)}-reg.sock",
            ],
        ),
        _first_that_fits(_plugin_directory(kubelet_root, driver), [f"dra-{pod_uid}.sock", f"dra-{_digest(pod_uid, 8)}.sock"]),
    )


def is_registrar_of(driver: str, name: str, *, own: str) -> bool:
    """Whether a file in the registry directory may be a leftover of this driver's, in any form of its name.

    The shortest form does not tell the driver. It counts only if `own`, the name we use in the same directory, has that form too: in a
    directory where the longer ones fit, nobody of ours ever used it.
    """
    if _HASHED_REGISTRAR.fullmatch(name):
        return _HASHED_REGISTRAR.fullmatch(own) is not None
    return re.fullmatch(rf"{re.escape(driver)}((-[A-Za-z0-9_=-]+)?-reg)?\.sock", name) is not None  # without -reg: the original's, to 0.5


def is_endpoint(name: str) -> bool:
    """Whether a file in the plugin's own directory is one of its sockets, in any form of the name."""
    return name == ORIGINALS_ENDPOINT or re.fullmatch(r"dra(-[A-Za-z0-9_=-]+)?\.sock", name) is not None


def _registry(kubelet_root: str) -> str:
    return f"{kubelet_root.rstrip('/')}/plugins_registry"


def _plugin_directory(kubelet_root: str, driver: str) -> str:
    return f"{kubelet_root.rstrip('/')}/plugins/{driver}"


def _digest(text: str, size_bytes: int) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:size_bytes]).decode().rstrip("=")


def _first_that_fits(directory: str, names: list[str]) -> str:
    for name in names:
        path = f"{directory}/{name}"
        if len(path.encode()) <= LONGEST_PATH_BYTES:
            return path
    raise ValueError(f"{path} is {len(path.encode())} bytes long, a socket's path at most {LONGEST_PATH_BYTES}; use a shorter kubelet root")
