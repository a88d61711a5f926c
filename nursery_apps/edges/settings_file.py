"""A settings file on disk, and word of its changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import trio

from dra.settings import SettingsInvalid
from nursery_apps.edges.file_watch import InotifyWatch

S = TypeVar("S", bound=msgspec.Struct)


def decode_text(data: bytes, name: str, decode: Callable[[object, str], S]) -> S:
    """
    Raises:
        SettingsInvalid
    """
    from nursery_apps.edges import yaml_text  # noqa: PLC0415  who has no settings file needs no parser

    return decode(yaml_text.load(data, name), name)


class SettingsFile(Generic[S]):
    """Keeps the promise of `nursery_apps.reload.SettingsSource`."""

    def __init__(self, path: str, decode: Callable[[object, str], S]) -> None:
        """`decode` takes the parsed document and the file's name for messages."""
        self._path = path
        self._decode = decode

    def read(self) -> S:
        try:
            data = Path(self._path).read_bytes()
        except OSError as error:
            raise SettingsInvalid(f"{self._path}: {error.strerror}") from None
        return decode_text(data, self._path, self._decode)

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await InotifyWatch().file(self._path, wake, task_status=task_status)
