"""The `sriov` part of a settings file: which cards are cut into which VFs, and what is said about a file that is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from dra import layouts, quantities, vf_cards, vf_profiles
from dra.devices import Gpu
from dra.layouts import Layout
from dra.selectors import Selector, matches, selector_fault
from dra.vf_cards import CONTEXTS, Card
from dra.vf_profiles import FAIR_SHARE, VfProfile

_NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"


class OwnProfile(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A size of VF that no table has. What is left out is an even part of the card for as many VFs as its memory allows."""

    name: Annotated[str, msgspec.Meta(description="What layouts call it.", examples=["quarter"], extra_json_schema={"pattern": _NAME})]
    memory: Annotated[str, msgspec.Meta(description="Local memory of one VF over all tiles, a quantity of bytes.", examples=["4Gi"])]
    ggtt: Annotated[
        str | None,
        msgspec.Meta(description="Graphics address space on each GT, a quantity of bytes; prelim i915 only.", examples=["512Mi"]),
    ] = None
    contexts: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=CONTEXTS)] | None,
        msgspec.Meta(description="Contexts on each GT; prelim i915 only.", examples=[1024]),
    ] = None
    doorbells: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=256)] | None,
        msgspec.Meta(description="Doorbells on each GT; prelim i915 only.", examples=[30]),
    ] = None
    exec_quantum_ms: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None,
        msgspec.Meta(description="Milliseconds a VF runs before the next one's turn; 0 is no limit.", examples=[16]),
    ] = None
    preempt_timeout_us: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] | None,
        msgspec.Meta(description="Microseconds a VF has to give way; 0 is no limit.", examples=[32000]),
    ] = None


class VfCount(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Some VFs of one profile."""

    profile: Annotated[str, msgspec.Meta(description="Name of a profile, or `fair-share`.", examples=["flex170_m8"])]
    count: Annotated[int, msgspec.Meta(ge=1, le=256, description="How many of them.", examples=[4])]


class Cut(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the selected cards are cut."""

    select: Annotated[Selector, msgspec.Meta(description="Cards this is for; all fields given must match.")]
    node_labels: Annotated[
        dict[str, str], msgspec.Meta(description="Only on nodes with all of these labels.", examples=[{"example.com/pool": "vdi"}])
    ] = {}
    vfs: Annotated[
        str | tuple[VfCount, ...],
        msgspec.Meta(
            description="A profile, of which as many VFs are made as fill the card (of `fair-share` as many as the card can have); or a "
            "list of profiles with counts, the first VFs first.",
            examples=["flex170_m8", [{"profile": "fair-share", "count": 4}]],
        ),
    ]


class Sriov(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    mode: Annotated[
        Literal["auto", "off", "on-demand", "fixed"],
        msgspec.Meta(
            description="`off` makes no VFs and offers those that are there; `fixed` cuts the selected cards as `layouts` says; "
            "`on-demand`, with kubelets up to 1.30, cuts any card as claims need it, and is `off` with later ones, where nobody can decide "
            "so; `auto` is `on-demand`.",
            examples=["fixed"],
        ),
    ] = "auto"
    make: Annotated[
        Literal["lazy", "eager"],
        msgspec.Meta(
            description="Whether the VFs of mode `fixed` are made when the first of a card is claimed, or at once; with kubelets up to "
            "1.30 always at once.",
            examples=["eager"],
        ),
    ] = "lazy"
    keep: Annotated[
        Literal["remove", "keep"],
        msgspec.Meta(
            description="What becomes of a card's VFs when the last of them is released: `remove` makes the card whole again.",
            examples=["keep"],
        ),
    ] = "remove"
    without_counters: Annotated[
        Literal["vfs", "card"],
        msgspec.Meta(
            description="What is offered of a card where the API server keeps no shared counters (DRAPartitionableDevices is off) and the "
            "scheduler could give away the card and its VFs both: its VFs, or the card.",
            examples=["card"],
        ),
    ] = "vfs"
    layouts: Annotated[
        tuple[Cut, ...],
        msgspec.Meta(
            description="How which cards are cut; the first entry that selects a card holds for it.",
            examples=[[{"select": {"pciId": "0x56c0"}, "vfs": "flex170_m8"}]],
        ),
    ] = ()
    profiles: Annotated[
        tuple[OwnProfile, ...],
        msgspec.Meta(description="Sizes of VFs that no table has.", examples=[[{"name": "quarter", "memory": "4Gi"}]]),
    ] = ()


class Wanted(msgspec.Struct, frozen=True):
    """What the settings want of one card."""

    layout: Layout = ()
    """Empty: not to be cut, or it cannot be."""
    why: tuple[str, ...] = ()
    """Why the card cannot be cut as the settings say, for people."""


def faults(sriov: Sriov) -> tuple[str, ...]:
    """What is wrong in itself, whatever cards there are: a sentence each, with the place; empty if all is well."""
    found: list[str] = []
    own = [profile.name for profile in sriov.profiles]
    for index, profile in enumerate(sriov.profiles):
        place = f"$.sriov.profiles[{index}]"
        if not re.fullmatch(_NAME, profile.name):
            found.append(f"{_shown(profile.name)} is not a name: lower-case letters, digits, `_` and `-`, at most 63 - at `{place}.name`")
        elif profile.name in vf_profiles.PSEUDO or vf_profiles.find(profile.name) is not None:
            found.append(f"{profile.name} is a profile of the driver's own - at `{place}.name`")
        elif profile.name in own[:index]:
            found.append(f"{profile.name} is there twice - at `{place}.name`")
        found += [
            f"{_shown(text)} is not a quantity of bytes such as 4Gi - at `{place}.{field}`"
            for field, text in (("memory", profile.memory), ("ggtt", profile.ggtt))
            if text is not None and not _bytes(text)
        ]
    if sriov.mode == "fixed" and not sriov.layouts:
        found.append("mode fixed needs to be told how to cut which cards - at `$.sriov.layouts`")
    for index, cut in enumerate(sriov.layouts):
        place = f"$.sriov.layouts[{index}]"
        if (fault := selector_fault(cut.select)) is not None:
            found.append(f"{fault} - at `{place}.select`")
        found += _cut_faults(cut, f"{place}.vfs", own)
    return tuple(found)


def for_classic(sriov: Sriov) -> Sriov:
    """What these settings mean with kubelets up to 1.30, where VFs are offered only once they are there, or chosen by the controller."""
    mode = "on-demand" if sriov.mode == "auto" else sriov.mode
    return msgspec.structs.replace(sriov, mode=mode, make="eager" if mode == "fixed" else "lazy")


def may_cut(sriov: Sriov, gpu: Gpu, labels: Mapping[str, str]) -> bool:
    """Whether a card may come to be cut by these settings, made `for_classic` or not."""
    return gpu.max_vfs_usable > 0 if sriov.mode == "on-demand" else cut_for(sriov, gpu, labels) is not None


def cut_for(sriov: Sriov, gpu: Gpu, labels: Mapping[str, str]) -> Cut | None:
    """The entry that holds for a card on a node with these labels."""
    if sriov.mode != "fixed":
        return None
    return next(
        (cut for cut in sriov.layouts if matches(cut.select, gpu) and cut.node_labels.items() <= labels.items()),
        None,
    )


def wanted(sriov: Sriov, gpu: Gpu, card: Card, labels: Mapping[str, str]) -> Wanted:
    """What these settings, which have no faults, want of one card; checked against it.

    Args:
        gpu: the physical function, for the selectors.
        card: the same as far as cutting it matters.
        labels: of the node.
    """
    cut = cut_for(sriov, gpu, labels)
    if cut is None:
        return Wanted()
    profiles = {profile.name: _made(profile, card) for profile in sriov.profiles}
    if isinstance(cut.vfs, str):
        layout = layouts.fill(_profile(cut.vfs, profiles), card)
    else:
        layout = tuple(_profile(one.profile, profiles) for one in cut.vfs for _ in range(one.count))
    if not layout:
        return Wanted(why=(f"{card.bdf} can have no VFs with the driver it has",))
    why = layouts.feasible(layout, card)
    return Wanted((), why) if why else Wanted(layout)


def promised(sriov: Sriov, layout: Sequence[str], card: Card) -> Wanted:
    """A layout that claims rely on, from the profiles' names, VF 1 first; not checked against the card, which decides when it is cut."""
    own = {profile.name: _made(profile, card) for profile in sriov.profiles}
    if unknown := unknown_profiles(sriov, layout):
        return Wanted((), tuple(f"there is no profile {_shown(name)} any more" for name in unknown))
    return Wanted(tuple(_profile(name, own) for name in layout))


def unknown_profiles(sriov: Sriov, names: Iterable[str]) -> list[str]:
    """Those of the names, once each, that neither the table nor the settings have."""
    own = {profile.name for profile in sriov.profiles}
    return [name for name in dict.fromkeys(names) if name not in own and vf_profiles.find(name) is None]


def _cut_faults(cut: Cut, place: str, own: list[str]) -> list[str]:
    names = [cut.vfs] if isinstance(cut.vfs, str) else [one.profile for one in cut.vfs]
    places = [place] if isinstance(cut.vfs, str) else [f"{place}[{at}].profile" for at in range(len(names))]
    if not names:
        return [f"an empty list of VFs says nothing; leave the entry out - at `{place}`"]
    known = [*own, *vf_profiles.names()]
    found = [
        f"there is no profile {_shown(name)}{_hint(name, known)} - at `{at}`"
        for name, at in zip(names, places, strict=True)
        if name not in known
    ]
    if FAIR_SHARE.name in names and len(set(names)) > 1:
        found.append(f"{FAIR_SHARE.name} beside other profiles: the kernel splits the whole card or nothing - at `{place}`")
    return found


def _made(own: OwnProfile, card: Card) -> VfProfile:
    return vf_cards.own_profile(
        own.name,
        card,
        memory_bytes=quantities.parse(own.memory),
        ggtt_bytes_per_gt=None if own.ggtt is None else quantities.parse(own.ggtt),
        contexts_per_gt=own.contexts,
        doorbells_per_gt=own.doorbells,
        exec_quantum_ms=own.exec_quantum_ms,
        preempt_timeout_us=own.preempt_timeout_us,
    )


def _profile(name: str, own: dict[str, VfProfile]) -> VfProfile:
    profile = own.get(name) or vf_profiles.find(name)
    assert profile is not None, f"{name}: the settings were not checked"
    return profile


def _bytes(text: str) -> int:
    """0 for what is no quantity, and for what no card has (more than 63 bits)."""
    try:
        value = quantities.parse(text)
    except ValueError:
        return 0
    return value if 0 < value < 1 << 63 else 0


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(text: str) -> str:
    return repr(text[:60])
