"""The calls of kubelets from 1.28 to 1.30 on the wire: `v1alpha3.Node` with resource handles, and what is done where a plugin only knows
`v1alpha2.Node`, which is asked claim by claim.

1.28 opens a connection for every call; so it finds out anew each time what the plugin knows. 1.29 and 1.30 keep both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tools.simcluster.plugin_calls import MESSAGES, CallFailed, Connection
from tools.simcluster.registrar import Instance

_BATCH: Final = "v1alpha3.Node"
_SINGLE: Final = "v1alpha2.Node"


class Asked(msgspec.Struct, frozen=True):
    """A claim, or rather one handle of it."""

    namespace: str
    uid: str
    name: str
    handle: str


class Result(msgspec.Struct, frozen=True):
    cdi_devices: list[str]
    error: str


async def prepare(instance: Instance, wanted: list[Asked], minor: int, seconds: float) -> dict[str, Result]:
    """By UID.

    Raises:
        CallFailed
    """
    with _connected(instance, minor) as connection:
        if not instance.knows_only_single:
            try:
                answer = await connection.call(f"/{_BATCH}/NodePrepareResources", _batch(wanted), MESSAGES["HandlesResponse"], seconds)
            except CallFailed as failed:
                _fall_back(instance, failed)
            else:
                return {entry.key: Result(list(entry.value.cdi_devices), entry.value.error) for entry in answer.claims}
        results = {}
        for asked in wanted:
            try:
                answer = await connection.call(f"/{_SINGLE}/NodePrepareResource", _single(asked), MESSAGES["HandleResponse"], seconds)
            except CallFailed as failed:
                results[asked.uid] = Result([], str(failed))
            else:
                results[asked.uid] = Result(list(answer.cdi_devices), "")
        return results


async def unprepare(instance: Instance, wanted: list[Asked], minor: int, seconds: float) -> dict[str, str]:
    """By UID: what went wrong, empty for nothing.

    Raises:
        CallFailed
    """
    with _connected(instance, minor) as connection:
        if not instance.knows_only_single:
            try:
                answer = await connection.call(f"/{_BATCH}/NodeUnprepareResources", _batch(wanted), MESSAGES["UnprepareResponse"], seconds)
            except CallFailed as failed:
                _fall_back(instance, failed)
            else:
                return {entry.key: entry.value.error for entry in answer.claims}
        results = {}
        for asked in wanted:
            try:
                await connection.call(f"/{_SINGLE}/NodeUnprepareResource", _single(asked), MESSAGES["InfoRequest"], seconds)
            except CallFailed as failed:
                results[asked.uid] = str(failed)
            else:
                results[asked.uid] = ""
        return results


@contextmanager
def _connected(instance: Instance, minor: int) -> Iterator[Connection]:
    if minor >= 29:
        yield instance.connection
        return
    connection = Connection(instance.endpoint)
    instance.knows_only_single = False
    try:
        yield connection
    finally:
        connection.close()


def _fall_back(instance: Instance, failed: CallFailed) -> None:
    """Remembered for as long as the instance is; 1.28 forgets it with its connection."""
    if failed.code != "UNIMPLEMENTED":
        raise failed
    instance.knows_only_single = True


def _batch(wanted: list[Asked]) -> Any:
    claims = [
        MESSAGES["HandleClaim"](namespace=asked.namespace, uid=asked.uid, name=asked.name, resource_handle=asked.handle) for asked in wanted
    ]
    return MESSAGES["HandleClaims"](claims=claims)


def _single(asked: Asked) -> Any:
    return MESSAGES["HandleRequest"](namespace=asked.namespace, claim_uid=asked.uid, claim_name=asked.name, resource_handle=asked.handle)
