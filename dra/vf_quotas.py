"""What is written to cut a card and to make it whole again, as data: a path below the driver's provisioning directory, and a text.

That directory is `drm/cardN/prelim_iov` of prelim i915 and `sriov_admin` of xe. Everything here is written while there are no VFs: prelim
i915 takes a quota of a VF in use as well, and pushes it to the card at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from dra import layouts, vf_cards
from dra.layouts import Layout
from dra.vf_cards import Card, Interface
from dra.vf_profiles import VfProfile

PRELIM_ATTRIBUTES: Final = ("contexts_quota", "doorbells_quota", "exec_quantum_ms", "ggtt_quota", "lmem_quota", "preempt_timeout_us")
"""Of every VF and GT, in the order they are written."""
ADMIN_ATTRIBUTES: Final = ("exec_quantum_ms", "preempt_timeout_us", "vram_quota")
"""Of every VF. Memory last: it is what a card can refuse, and the others alone change nothing for the next even split."""


class Write(msgspec.Struct, frozen=True):
    """One write to one file."""

    path: str
    """Below the provisioning directory, `vf1/gt0/lmem_quota` or `vf1/profile/vram_quota`."""
    text: str
    """Without a newline."""


def quotas(layout: Layout, card: Card) -> tuple[Write, ...]:
    """What to write before `sriov_numvfs` becomes the number of VFs, in order; nothing for fair share.

    A VF of prelim i915 needs contexts, GGTT and memory, or making the VFs is ENOKEY; values read back as the kernel rounded them, which
    is what is written here.

    Raises:
        ValueError: the layout is not feasible; the reasons are its text.
    """
    if reasons := layouts.feasible(layout, card):
        raise ValueError("; ".join(reasons))
    if not any(profile.has_quotas for profile in layout):
        return ()
    writes = _prelim if card.interface is Interface.PRELIM else _admin
    return tuple(writes(layout, card))


def cleared(card: Card) -> tuple[Write, ...]:
    """What to write to a card without VFs so that nothing of earlier layouts is left and the kernel splits evenly again.

    Every VF the card could ever have is cleared: a quota of VF 9 keeps its share although only 4 are made. Prelim i915 takes
    `auto_provisioning` back only after that (ESTALE).
    """
    vfs = range(1, card.total_vfs + 1)
    if card.interface is Interface.PRELIM:
        zeros = tuple(
            Write(f"vf{vf}/{gt}/{name}", "0") for vf in vfs for gt in card.gts for name in PRELIM_ATTRIBUTES if _there(name, card)
        )
        return (*zeros, Write("pf/auto_provisioning", "1"))
    return tuple(Write(f"vf{vf}/profile/{name}", "0") for vf in vfs for name in ADMIN_ATTRIBUTES if name in card.attributes)


def _prelim(layout: Layout, card: Card) -> Iterator[Write]:
    for vf, profile in enumerate(layout, start=1):
        quota = vf_cards.quota_of(profile, card)
        values = {
            "contexts_quota": quota.contexts_per_gt,
            "doorbells_quota": quota.doorbells_per_gt,
            "exec_quantum_ms": profile.exec_quantum_ms,
            "ggtt_quota": quota.ggtt_bytes_per_gt,
            "lmem_quota": quota.memory_bytes // card.tiles,
            "preempt_timeout_us": profile.preempt_timeout_us,
        }
        for gt in card.gts:
            for name in PRELIM_ATTRIBUTES:
                yield Write(f"vf{vf}/{gt}/{name}", str(values[name]))


def _admin(layout: Layout, card: Card) -> Iterator[Write]:
    """xe divides memory among the tiles itself (vram_per_tile, xe_sriov_pf_provision.c)."""
    for vf, profile in enumerate(layout, start=1):
        values = _times(profile) | {"vram_quota": vf_cards.memory_of(profile, card)}
        for name in ADMIN_ATTRIBUTES:
            if name in card.attributes:
                yield Write(f"vf{vf}/profile/{name}", str(values[name]))
    if "vram_quota" not in card.attributes:
        yield Write(".bulk_profile/vram_quota", str(vf_cards.memory_of(layout[0], card)))


def _times(profile: VfProfile) -> dict[str, int]:
    return {"exec_quantum_ms": profile.exec_quantum_ms, "preempt_timeout_us": profile.preempt_timeout_us}


def _there(name: str, card: Card) -> bool:
    return name != "lmem_quota" or card.memory_bytes is not None
