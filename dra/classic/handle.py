"""The resource handle of a classic claim: the whole decision, as the controller wrote it into the claim and the kubelet hands it on.

It is the only record of an allocation: the controller rebuilds its ledger from the handles of all claims, and a node needs nothing else to
prepare one. Whoever reads it may be older than whoever wrote it, so it says its version.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from dra.errors import ClaimRefused

VERSION: Final = 1
MOST_BYTES: Final = 16 * 1024
"""What the API server takes (resource.k8s.io/v1alpha2, ResourceHandleDataMaxSize)."""
ORIGINALS_MONITOR: Final = "monitor"
"""What the original driver wrote for claims of a monitor class."""

Layout = tuple[tuple[str, int], ...]
"""How a card is cut: (profile, how many), VF 1 first."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What a claim has of one card: the card or an amount of it, some of its VFs, or one VF that somebody else made."""

    uid: str
    """Of the card; of the VF where `parent` is set."""
    memory: int = 0
    """MiB of a card that are set aside; of a card held whole all that it has."""
    millicores: int = 0
    """Thousandths of a card, likewise."""
    vfs: tuple[int, ...] = ()
    """Numbers of the VFs held, as the kernel counts: from 1."""
    layout: Layout = ()
    """How the card of `vfs` is, or is to be, cut: the same in all claims on it."""
    parent: str = ""
    """The card of a VF that an administrator made."""
    index: int = 0
    """That VF's number, from 1."""


class Handle(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    version: int
    node: str
    parts: tuple[Part, ...] = ()
    shared: bool = False
    """Other claims may have amounts of the same cards."""
    monitor: bool = False
    """Looks at every device of the node and holds none."""


def render(handle: Handle) -> str:
    """The handle's text, at most MOST_BYTES.

    Raises:
        ValueError: it is longer.
    """
    text = msgspec.json.encode(handle).decode()
    if len(text) > MOST_BYTES:  # the JSON is ASCII: uids, names of profiles and of nodes
        raise ValueError(f"a handle of {len(text)} bytes; {MOST_BYTES} is the most")
    return text


def parse(data: str) -> Handle:
    """The inverse of `render`. The original's word for monitors is a handle too, of no node.

    Raises:
        ClaimRefused: it is empty (a claim that the original driver allocated), not ours, or of a later version.
    """
    if data == ORIGINALS_MONITOR:
        return Handle(version=VERSION, node="", monitor=True)
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version == VERSION:
            return msgspec.json.decode(data, type=Handle)
    except msgspec.DecodeError as error:
        raise ClaimRefused(f"the claim's resource handle is not this driver's: {error}", reason="UnknownHandle") from None
    raise ClaimRefused(
        f"the claim's resource handle has version {version}, this driver knows {VERSION}: update the node plugin",
        reason="UnknownHandle",
    )


def run_length(profiles: Iterable[str]) -> Layout:
    """Names of profiles, VF 1 first -> the layout as handles have it."""
    return tuple((name, len(list(same))) for name, same in itertools.groupby(profiles))


def profiles_of(layout: Layout) -> Sequence[str]:
    """The inverse of `run_length`."""
    return [name for name, count in layout for _ in range(count)]


class _Versioned(msgspec.Struct, gc=False):
    version: int = 0
