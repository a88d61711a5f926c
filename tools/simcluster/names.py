"""The grammars of names, as apimachinery's validation has them."""

from __future__ import annotations

import re
from typing import Final

from dra.structured import amounts

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_C_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)


def label(text: str) -> bool:
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def subdomain(text: str, longest: int = 253) -> bool:
    return len(text) <= longest and _SUBDOMAIN.fullmatch(text) is not None


def c_identifier(text: str, longest: int = 32) -> bool:
    return len(text) <= longest and _C_IDENTIFIER.fullmatch(text) is not None


def label_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return (not slash or subdomain(prefix)) and len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def label_value(text: str) -> bool:
    return text == "" or (len(text) <= 63 and _QUALIFIED.fullmatch(text) is not None)


def uid(text: str) -> bool:
    return _UID.fullmatch(text) is not None


quantity, quantity_text = amounts.quantity, amounts.quantity_text
semver, semver_key = amounts.semver, amounts.semver_key
