"""A card that can be cut into VFs: by which files, how much there is to share out, and what a VF of a profile really gets of it.

Rules of the kernel: prelim i915 gt/iov/intel_iov_provisioning.c; xe xe_gt_sriov_pf_config.c and xe_sriov_pf_provision.c.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from dra import vf_profiles
from dra.names import Bdf
from dra.vf_profiles import UNKNOWN, VfProfile

MEMORY_STEP_BYTES: Final = 2 << 20
"""Both drivers round a VF's memory up to this on every tile."""
GGTT_STEP_BYTES: Final = 64 << 10
CONTEXTS_STEP: Final = 128
MEMORY_KEPT_BYTES: Final = 128 << 20
"""What the PF keeps of every tile's memory."""
GGTT_BYTES: Final = 4026531840
"""What the tables share out of a GT's 4 GiB: the PF keeps at least 64 MiB, the firmware's areas take more."""
CONTEXTS: Final = 65535 - 256
"""Context ids of a GT without those the PF keeps."""
DOORBELLS: Final = 240
"""Of a GT's 256; the tables leave 16 to the PF."""


class Interface(enum.StrEnum):
    """Which files take the quotas of VFs."""

    PRELIM = "prelim"
    """Prelim i915: a directory for every VF and GT below `prelim_iov`, quotas stay when the VFs go."""
    ADMIN = "admin"
    """xe from 6.19 on: `sriov_admin`, without GGTT, contexts and doorbells, which the kernel always splits by itself."""
    NONE = "none"
    """xe before 6.19, where only debugfs has them, which is no interface: the kernel splits everything evenly."""


class Budget(msgspec.Struct, frozen=True):
    """What all VFs of a card may get together, without what the PF keeps."""

    memory_bytes: int
    """Over all tiles."""
    ggtt_bytes_per_gt: int
    contexts_per_gt: int
    doorbells_per_gt: int


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A physical function as far as cutting it matters."""

    bdf: Bdf
    device: str
    """PCI id, `0xe211`."""
    interface: Interface
    max_vfs: int
    """Most VFs that work: `Gpu.max_vfs_usable`."""
    total_vfs: int
    """sriov_totalvfs: how many vfN directories there are."""
    memory_bytes: int | None
    """Local memory over all tiles; None where the kernel does not say and for integrated GPUs."""
    tiles: int = 1
    gts: tuple[str, ...] = ("gt",)
    """Prelim: directories of a VF, `gt` on cards with one GT, `gt0`, `gt1` on every Max."""
    attributes: frozenset[str] = frozenset()
    """xe: files below `vfN/profile` that can be written; `vram_quota` came later than the others."""
    bulk_attributes: frozenset[str] = frozenset()
    """xe: files below `.bulk_profile`."""
    ecc: bool | None = None
    """Whether memory is checked for errors; None where nobody says."""

    @property
    def budget(self) -> Budget:
        """What can be shared out: the card's memory and what the tables count of the rest. What the kernel says is free at the moment
        (prelim `pf/gt*/available`) does not count: a layout must mean the same while it is in force, and too much is refused then."""
        family = vf_profiles.family_of(self.device)
        return Budget(
            memory_bytes=max(0, down((self.memory_bytes or 0) - self.tiles * MEMORY_KEPT_BYTES, self.tiles * MEMORY_STEP_BYTES)),
            ggtt_bytes_per_gt=family.totals.ggtt_bytes_per_gt if family else GGTT_BYTES,
            contexts_per_gt=CONTEXTS,
            doorbells_per_gt=family.totals.doorbells_per_gt if family else DOORBELLS,
        )

    @property
    def splits_all(self) -> bool:
        """Whether the driver takes quotas of GGTT, contexts and doorbells too."""
        return self.interface is Interface.PRELIM


def memory_of(profile: VfProfile, card: Card) -> int:
    """Bytes of local memory that a VF gets over all tiles, as the kernel rounds them; 0 for pseudo profiles.

    Where nobody says whether memory is checked for errors, it is taken as checked if the profile's unchecked VFs would not fit.
    """
    checked = profile.per_card * profile.memory_bytes > card.budget.memory_bytes if card.ecc is None else card.ecc
    return up(profile.memory_ecc_bytes if checked else profile.memory_bytes, card.tiles * MEMORY_STEP_BYTES)


def quota_of(profile: VfProfile, card: Card) -> Budget:
    """What a VF takes of the budget, as the kernel rounds it: xe takes a quota of memory only."""
    if not card.splits_all:
        return Budget(memory_of(profile, card), 0, 0, 0)
    return Budget(
        memory_bytes=memory_of(profile, card),
        ggtt_bytes_per_gt=up(profile.ggtt_bytes_per_gt, GGTT_STEP_BYTES),
        contexts_per_gt=up(profile.contexts_per_gt, CONTEXTS_STEP),
        doorbells_per_gt=profile.doorbells_per_gt,
    )


def fair_memory_bytes(card: Card, count: int) -> int:
    """Bytes that each of `count` (at least 1) VFs has over all tiles, and maybe more, when the kernel splits evenly; 0 without local
    memory.

    Some releases of xe round the even part of a tile down to a power of two (pf_estimate_fair_lmem, xe_gt_sriov_pf_config.c) and nothing
    says which one runs, so no more than that is promised before the VF can be asked.
    """
    part = card.budget.memory_bytes // card.tiles // count
    if card.interface is not Interface.PRELIM and part:
        part = 1 << (part.bit_length() - 1)
    return down(part, MEMORY_STEP_BYTES) * card.tiles


def own_profile(
    name: str,
    card: Card,
    *,
    memory_bytes: int,
    ggtt_bytes_per_gt: int | None = None,
    contexts_per_gt: int | None = None,
    doorbells_per_gt: int | None = None,
    exec_quantum_ms: int | None = None,
    preempt_timeout_us: int | None = None,
) -> VfProfile:
    """A profile of the administrator's on one card. What is left out is an even part for as many VFs as memory allows, and the times
    of the card's named profile for that many VFs or the next more.

    Args:
        memory_bytes: of one VF over all tiles; rounded up to what the kernel allots.

    Raises:
        ValueError: a name of a table or a pseudo profile, or no memory.
    """
    if name in vf_profiles.PSEUDO or vf_profiles.find(name) is not None:
        raise ValueError(f"{name} is a profile of the driver's own")
    if memory_bytes <= 0:
        raise ValueError(f"{name}: memory is {memory_bytes}, a VF needs some")
    budget, memory_bytes = card.budget, up(memory_bytes, card.tiles * MEMORY_STEP_BYTES)
    count = max(1, min(budget.memory_bytes // memory_bytes, card.max_vfs))
    named = vf_profiles.for_device(card.device)
    alike = next((profile for profile in named if profile.per_card >= count), named[-1] if named else UNKNOWN)
    even_ggtt_bytes = down(budget.ggtt_bytes_per_gt // count, GGTT_STEP_BYTES)
    even_contexts = min(1024, down(budget.contexts_per_gt // count, CONTEXTS_STEP))  # every table has 1024
    return VfProfile(
        name=name,
        per_card=count,
        memory_bytes=memory_bytes,
        memory_ecc_bytes=memory_bytes,
        ggtt_bytes_per_gt=even_ggtt_bytes if ggtt_bytes_per_gt is None else ggtt_bytes_per_gt,
        contexts_per_gt=even_contexts if contexts_per_gt is None else contexts_per_gt,
        doorbells_per_gt=budget.doorbells_per_gt // count if doorbells_per_gt is None else doorbells_per_gt,
        exec_quantum_ms=alike.exec_quantum_ms if exec_quantum_ms is None else exec_quantum_ms,
        preempt_timeout_us=alike.preempt_timeout_us if preempt_timeout_us is None else preempt_timeout_us,
        # A part that leaves room for no second VF is still no whole card.
        millicores=max(1, min(1000, 1000 * memory_bytes // budget.memory_bytes)) if budget.memory_bytes else 0,
    )


def up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step


def down(value: int, step: int) -> int:
    """The last multiple of `step`."""
    return value // step * step
