"""What settings mean for one card, in a sentence for people: what is made of it, when, and who stands in the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dra import card_facts, layouts, sriov_settings
from dra import ledger as ledgers
from dra.carvings import Carving
from dra.devices import Gpu, Kind
from dra.kernel_tree import KernelTree
from dra.layouts import Layout, Verdict
from dra.ledger import Ledger
from dra.names import BootId, ClaimUid
from dra.sriov_settings import Sriov, Wanted
from dra.vf_profiles import UNKNOWN


def present(gpu: Gpu, carving: Carving | None, boot_id: BootId) -> Layout:
    """The layout that a card has now."""
    if not gpu.vfs_now:
        return ()
    if carving is not None and carving.tells_of(gpu.device, boot_id) and len(carving.layout) == gpu.vfs_now:
        return carving.layout
    return (UNKNOWN,) * gpu.vfs_now


def sentence(gpu: Gpu, now: Layout, wanted: Wanted, sriov: Sriov, users: Mapping[int, Collection[ClaimUid]]) -> str | None:
    """What will be done with a card; None if it is whole and stays so.

    Args:
        now: as `present` says.
        users: claims by the VF they hold, 0 for the card itself.
    """
    name = f"{gpu.bdf} ({gpu.model or gpu.device})"
    if wanted.why:
        return f"{name}: cannot be cut as the settings say: {'; '.join(wanted.why)}"
    if not now and not wanted.layout:
        return None
    if UNKNOWN in now:
        return f"{name}: has {len(now)} VFs that somebody else made: they are offered as they are"
    change = layouts.change(now, wanted.layout, users)
    match change.verdict:
        case Verdict.CARVE:
            when = "now" if sriov.make == "eager" else "when the first of them is claimed"
            return f"{name}: {layouts.describe(wanted.layout)} will be made {when}"
        case Verdict.BLOCKED:
            return f"{name}: {change.why}; it is done when they are released"
        case Verdict.NOTHING:
            return f"{name}: {change.why}"
        case Verdict.UNCARVE | Verdict.RECARVE:
            return f"{name}: {change.why}: it is done now"


def lines(tree: KernelTree, gpus: Sequence[Gpu], ledger: Ledger, sriov: Sriov, boot_id: BootId) -> list[str]:
    """What settings mean for each card of a machine, as far as that can be said without the node's labels."""
    users = ledgers.users(ledger, {gpu.bdf: gpu for gpu in gpus})
    said = []
    for gpu in gpus:
        if gpu.kind is Kind.PF and gpu.max_vfs_usable:
            wanted = sriov_settings.wanted(sriov, gpu, card_facts.read(tree, gpu).card, {})
            said.append(sentence(gpu, present(gpu, ledger.carvings.get(gpu.bdf), boot_id), wanted, sriov, users.get(gpu.bdf, {})))
    return [line for line in said if line is not None]
