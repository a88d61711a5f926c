"""The `sharing` part of a settings file: which whole GPUs several claims may hold at once, without VFs between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from dra import selectors
from dra.devices import Gpu, Kind
from dra.pool import SharePolicy
from dra.selectors import Selector

SHARES: Final = "shares"
"""Capacity that a GPU shared by number is published with."""
MEMORY: Final = "memory"
STEP_BYTES: Final = 1 << 20
"""Memory is given out in whole MiB, as it is published."""
MOST: Final = 256
"""More claims than pods of a node (110 by default, 250 on large ones) cannot come."""


class Sharing(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the selected GPUs are shared. Nothing keeps the pods on one GPU apart: each can use all of its memory and engines."""

    select: Annotated[Selector, msgspec.Meta(description="GPUs this is for; all fields given must match.")]
    policy: Annotated[
        Literal["exclusive", "shares", "memory"],
        msgspec.Meta(
            description="`exclusive` gives a GPU to one claim at a time; `shares` to as many as `shares` says; `memory` to as many as the "
            "memory that they ask for allows, and to one alone that asks for none."
        ),
    ]
    shares: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=MOST)] | None,
        msgspec.Meta(description="How many shares a GPU has; a claim takes one unless it asks for more.", examples=[4]),
    ] = None


def faults(sharing: tuple[Sharing, ...]) -> tuple[str, ...]:
    """What is wrong in itself, whatever GPUs there are: a sentence each, with the place; empty if all is well."""
    found: list[str] = []
    for index, entry in enumerate(sharing):
        place = f"$.sharing[{index}]"
        if (fault := selectors.selector_fault(entry.select)) is not None:
            found.append(f"{fault} - at `{place}.select`")
        if entry.policy == "shares" and entry.shares is None:
            found.append(f"policy shares needs to be told how many - at `{place}.shares`")
        if entry.policy != "shares" and entry.shares is not None:
            found.append(f"policy {entry.policy} has no number of shares - at `{place}.shares`")
    return tuple(found)


def terms_of(sharing: tuple[Sharing, ...], gpu: Gpu) -> Mapping[str, SharePolicy]:
    """How claims share a GPU by these settings, which have no faults; by capacity, empty if one claim has it whole.

    A claim that names no memory takes all of it: what was written before sharing was thought of keeps its GPU to itself.
    """
    entry = _entry(sharing, gpu)
    if entry is None or why_exclusive(sharing, gpu) is not None:
        return {}
    if entry.policy == "shares":
        return {SHARES: SharePolicy(default="1", min="1", max=str(entry.shares), step="1")}
    if entry.policy == "memory" and gpu.memory_bytes is not None:
        whole = f"{gpu.memory_bytes // STEP_BYTES}Mi"
        return {MEMORY: SharePolicy(default=whole, min="1Mi", max=whole, step="1Mi")}
    return {}


def why_exclusive(sharing: tuple[Sharing, ...], gpu: Gpu) -> str | None:
    """Why a GPU is for one claim at a time although these settings want it shared, for people; None if they do not, or it is shared."""
    entry = _entry(sharing, gpu)
    if entry is None or entry.policy == "exclusive":
        return None
    if gpu.kind is Kind.VF:
        return f"{gpu.bdf} is a VF: only whole GPUs are shared"
    if gpu.vfs_now:
        return f"{gpu.bdf} has VFs: only GPUs without are shared"
    if entry.policy == "memory" and not gpu.memory_bytes:
        return f"the memory of {gpu.bdf} is not known: it cannot be shared by memory"
    return None


def _entry(sharing: tuple[Sharing, ...], gpu: Gpu) -> Sharing | None:
    """The first that selects the GPU."""
    return next((entry for entry in sharing if selectors.matches(entry.select, gpu)), None)
