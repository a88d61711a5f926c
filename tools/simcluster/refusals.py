"""What the server says when it says no: `Status` objects with the reasons and wording of the real one."""

from __future__ import annotations

from typing import Any

import msgspec

from tools.simcluster.kinds import Json, Kind


class Cause(msgspec.Struct, frozen=True):
    field: str
    message: str
    reason: str = "FieldValueInvalid"


class Refused(Exception):
    """An answer other than the object asked for."""

    def __init__(self, code: int, reason: str, message: str, *, details: Json | None = None, retry_after: int | None = None) -> None:
        super().__init__(f"{reason} ({code}): {message}")
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after
        self.details: Json = {**(details or {}), **({"retryAfterSeconds": retry_after} if retry_after is not None else {})}

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def _about(kind: Kind, name: str) -> dict[str, Any]:
    return {**({"name": name} if name else {}), **({"group": kind.group} if kind.group else {}), "kind": kind.plural}


def not_found(kind: Kind, name: str) -> Refused:
    return Refused(404, "NotFound", f'{kind.qualified} "{name}" not found', details=_about(kind, name))


def no_such_path() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource", details={})


def exists(kind: Kind, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', details=_about(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> Refused:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return Refused(409, "Conflict", f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}', details=_about(kind, name))


def invalid(kind: Kind, name: str, causes: list[Cause]) -> Refused:
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    group = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Refused(
        422,
        "Invalid",
        f'{group} "{name}" is invalid: {text}',
        details={**_about(kind, name), "kind": kind.kind, "causes": [msgspec.to_builtins(cause) for cause in causes]},
    )


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str) -> Refused:
    return Refused(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {why}', details=_about(kind, name))


def expired(asked: int | str, oldest: int) -> Refused:
    return Refused(410, "Expired", f"too old resource version: {asked} ({oldest})")


def success(kind: Kind, name: str, uid: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {**_about(kind, name), "uid": uid}}
